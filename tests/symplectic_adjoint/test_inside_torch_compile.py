"""torch.compile around code that solves: eager's numbers, one graph before the solve and one behind it."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ADAPTIVE = {"rtol": 1e-6, "atol": 1e-8}
FIXED = {"method": "rk4", "options": {"step_size": 0.125}}
EQUAL = {"rtol": 1e-12, "atol": 1e-13}  # inductor fuses the layers around the solve, and so rounds in another order

# torch's tracer looks at .grad of every tensor, and hides the warning, which is an error here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


@pytest.fixture(autouse=True)
def _compiled_anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def whole(ys):
    """Return every number of a result: ys, (event time, ys), a Solution."""
    if isinstance(ys, sa.Solution):
        ys = ys.ys
    return torch.cat([x.reshape(-1) for x in ys]) if isinstance(ys, tuple) else ys


class Model(nn.Module):
    """An encoder, a solve, and a head."""

    def __init__(self, solve=None, func=None, **keywords):
        super().__init__()
        self.func = SmallNet() if func is None else func
        self.encoder, self.head = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(2))
        self.solve = solve or (lambda func, y0: sa.odeint(func, y0, T, **keywords))

    def forward(self, x):
        solved = whole(self.solve(self.func, torch.tanh(self.encoder(x))))
        return torch.tanh(solved) + self.head(x).sum()


def numbers(model, x):
    """Return the model's output, then every gradient of a loss of it."""
    x = x.clone().requires_grad_()
    out = model(x)
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [out, *torch.autograd.grad(weighted_loss(out), (x, *parameters), allow_unused=True)]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a is b is None or torch.equal(a, b)


SOLVES = {
    "odeint": lambda func, y0: sa.odeint(func, y0, T, **ADAPTIVE),
    "solve": lambda func, y0: sa.solve(func, y0, T, **ADAPTIVE),
    "odeint_adjoint": lambda func, y0: sa.odeint_adjoint(func, y0, T, **ADAPTIVE),
    "odeint_event": lambda func, y0: sa.odeint_event(func, y0, 0.0, event_fn=lambda t, y: y[0, 0] - 2 * t, **ADAPTIVE),
    "odeint_symplectic_adjoint": lambda func, y0: sa.odeint_symplectic_adjoint(func, y0, T, **ADAPTIVE),
    "odeint_dense": lambda func, y0: sa.odeint_dense(func, y0, 0.0, 1.0, **ADAPTIVE)(0.3),
    "a tuple state": lambda func, y0: sa.odeint(Pair(func), (y0, y0.sum(1)), T, **ADAPTIVE)[0],
    "repeated times": lambda func, y0: sa.odeint(func, y0, T[[0, 0, 1, 1, 2]], **ADAPTIVE),
    "times that require a gradient": lambda func, y0: sa.odeint(func, y0, (T * (1 + y0.sum().exp())), **ADAPTIVE),
}


class Pair(nn.Module):
    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, t, state):
        return self.func(t, state[0]), state[1].cos()


@pytest.mark.parametrize("name", SOLVES)
def test_every_public_function_gives_the_bits_of_eager_mode(name):
    model, x = Model(SOLVES[name]), start()
    counter = CompileCounter()
    expected = numbers(model, x)
    assert_same(numbers(torch.compile(model, backend=counter), x), expected)
    assert counter.frame_count <= 3  # what is computed between calls, or indexed before one, is a graph of its own


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("gradient", [*sa.GRADIENTS, sa.Symplectic(graphs=3)])
def test_every_gradient_is_that_of_eager_mode_in_two_graphs(gradient, keywords):
    keywords = {"gradient": gradient, **keywords}
    if gradient == "mali":
        keywords.pop("method", None)
    model, x, counter = Model(**keywords), start(), CompileCounter()
    assert_same(numbers(torch.compile(model, backend=counter), x), numbers(model, x))
    assert counter.frame_count == 2


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
def test_inductor_compiles_the_code_around_the_solve(keywords):
    model, x, counter = Model(**keywords), start(), CompileCounterWithBackend("inductor")
    for a, b in zip(numbers(torch.compile(model, backend=counter), x), numbers(model, x), strict=True):
        assert a is b is None or torch.allclose(a, b, **EQUAL)
    assert counter.frame_count == 2


def test_a_second_batch_recompiles_nothing():
    model, counter = Model(**ADAPTIVE), CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for seed in range(4):  # each with steps of its own
        x = start(seed=seed)
        assert_same(numbers(compiled, x), numbers(model, x))
    assert counter.frame_count == 2


def compiled_in_place(func, **how):
    func.compile(**how)
    return func


@pytest.mark.parametrize("make", [torch.compile, compiled_in_place])
@pytest.mark.parametrize("solve", ["odeint", "layer"])
def test_a_func_that_is_compiled_itself_runs_compiled(make, solve):
    inside, around = CompileCounter(), CompileCounter()
    func = make(SmallNet(), backend=inside)
    layer = sa.NeuralODE(func, **ADAPTIVE)
    by_odeint = lambda func, y0: sa.odeint(func, y0, T, rtol=1e-6, atol=1e-8)  # noqa: E731
    model = Model((lambda func, y0: layer(y0, T)) if solve == "layer" else by_odeint, func)
    x = start()
    got = numbers(torch.compile(model, backend=around), x)
    frames = inside.frame_count
    assert frames >= 1 and around.frame_count == 2
    assert_same(numbers(model, x), got)
    torch._dynamo.reset()
    with torch.compiler.set_stance("force_eager"):
        assert_same(numbers(model, x), got)
    assert inside.frame_count == frames


def test_a_solve_with_compile_may_be_inside():
    model, x, counter = Model(compile=True, **ADAPTIVE), start(), CompileCounter()
    got = numbers(torch.compile(model, backend=counter), x)
    model.solve = SOLVES["odeint"]
    for a, b in zip(got, numbers(model, x), strict=True):
        assert a is b is None or torch.allclose(a, b, **EQUAL)
    assert counter.frame_count == 2


@pytest.mark.parametrize("compiled_autograd", [False, True])
def test_a_compiled_training_step_takes_the_steps_of_eager_mode(compiled_autograd):
    def trained(compile):
        model = Model(**ADAPTIVE)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)

        def step(x):
            optimizer.zero_grad()
            loss = weighted_loss(model(x))
            loss.backward()
            optimizer.step()
            return loss.detach()

        with torch._dynamo.config.patch(compiled_autograd=compiled_autograd):
            losses = [compile(step)(start(seed=seed)) for seed in range(3)]
        return [*losses, *(p.detach() for p in model.parameters())]

    torch.manual_seed(3)
    expected = trained(lambda step: step)
    torch.manual_seed(3)
    got = trained(partial(torch.compile, backend="eager"))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, **EQUAL)


def test_what_is_compiled_may_be_the_solve_itself_and_the_layer():
    func, x, counter = SmallNet(), start(), CompileCounter()
    expected = sa.odeint(func, x, T, **ADAPTIVE)
    assert torch.equal(torch.compile(sa.odeint, backend=counter)(func, x, T, **ADAPTIVE), expected)
    assert torch.equal(torch.compile(sa.NeuralODE(func, **ADAPTIVE), backend=counter)(x, T), expected)
    assert counter.frame_count == 0


def test_one_graph_without_a_break_is_refused_with_the_reason():
    with pytest.raises(torch._dynamo.exc.Unsupported, match="symplectic_adjoint solves outside of compiled graphs"):
        torch.compile(Model(**ADAPTIVE), fullgraph=True, backend="eager")(start())


@pytest.mark.parametrize(
    "public",
    [x for x in vars(sa).values() if callable(x) and not isinstance(x, type) and x.__module__.startswith(sa.__name__)],
    ids=lambda x: x.__name__,
)
def test_every_public_function_is_marked(public):
    if public is not sa.watch_memory:  # it runs what the caller gives it
        assert public._torchdynamo_disable


def test_importing_the_library_does_not_import_the_tracer():
    code = "import sys, symplectic_adjoint; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
