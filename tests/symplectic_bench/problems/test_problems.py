"""Properties that all problems share: shapes, dtypes, seeds, copies and gradients; and checks of their sizes."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_bench.data.tables import table_file
from symplectic_bench.problems import PROBLEMS, in_turn

WINE = {"flow": {"data": "wine"}}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Return a cache with a small table in place of the real one, so that most tests need no scikit-learn."""
    folder = tmp_path_factory.mktemp("cache")
    np.savez(table_file("wine", folder), rows=np.random.default_rng(0).normal(size=(20, 5)))
    return folder


@pytest.fixture
def build(cache_dir):
    def build(name, dtype="float64", seed=0, batch=3, **sizes):
        return PROBLEMS[name].build({**WINE.get(name, {}), **sizes}, batch, dtype, seed=seed, cache_dir=cache_dir)

    return build


every_problem = pytest.mark.parametrize("name", PROBLEMS)


@every_problem
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_field_has_the_shape_and_dtype_of_its_state(build, name, dtype):
    problem = build(name, dtype)
    value = problem.fields[0](problem.t[0].to(problem.y0), problem.y0)
    assert (value.shape, value.dtype) == (problem.y0.shape, getattr(torch, dtype))
    assert problem.y0.shape[0] == 3 and problem.t.dtype == torch.float64
    assert all(p.dtype == problem.y0.dtype for p in problem.parameters)


@every_problem
def test_equal_seeds_give_equal_problems(build, name):
    one, same, other = build(name), build(name), build(name, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.inputs, same.inputs, strict=True))
    assert not torch.equal(one.y0, other.y0)


@every_problem
def test_a_float32_problem_is_the_rounded_float64_one(build, name):
    exact, rounded = build(name), build(name, "float32")
    for a, b in zip(exact.inputs, rounded.inputs, strict=True):
        # Times that are differentiated stay float64, as all times do.
        assert torch.equal(a.detach().to(torch.float64 if b is rounded.moving_t else torch.float32), b.detach())
    up = rounded.to(torch.float64)
    for a, b in zip(rounded.inputs, up.inputs, strict=True):
        assert b.dtype == torch.float64 and torch.equal(a.detach().double(), b.detach())
    assert all(buffer.dtype == torch.float64 for buffer in up.loss.buffers())


@every_problem
def test_a_copy_shares_no_tensor(build, name):
    problem = build(name)
    twin = problem.to(torch.float64)
    with torch.no_grad():
        for tensor in twin.inputs:
            tensor.zero_()
    assert all(bool(tensor.abs().sum() > 0) for tensor in problem.inputs)


@every_problem
def test_every_input_has_a_gradient(build, name):
    problem = build(name)
    how: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3, "gradient": "backprop"}
    ys = in_turn(problem, lambda part: odeint(part.func, part.y0, part.solved_t, **how))
    problem.loss(ys).backward()
    assert all(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0) for tensor in problem.inputs)
    problem.clear_gradients()
    assert all(bool((g == 0).all()) for g in problem.gradient())


def test_the_identity_returns_its_argument_without_a_copy(build):
    problem = build("identity", dim=5)
    assert problem.func(problem.t[0], problem.y0) is problem.y0
    assert problem.parameters == () and problem.y0.shape == (3, 5)


def test_the_loss_of_the_identity_stores_nothing_for_an_output(build):
    """Neither in its graph nor in its gradient, so memory that grows with the outputs is the solver's."""
    problem = build("identity", outputs=1000)
    ys = torch.ones(1001, *problem.y0.shape, dtype=torch.float64, requires_grad=True)
    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: held.append(x) or x, lambda x: x):
        loss = problem.loss(ys)
    (gradient,) = torch.autograd.grad(loss, ys)
    assert max(x.untyped_storage().nbytes() for x in (*held, gradient)) <= problem.y0.numel() * 8
    assert torch.equal(gradient[0], problem.loss.direction / ys.numel())


def test_layers_counts_hidden_layers(build):
    field = build("mlp", state=2, width=64, layers=3).func
    assert [tuple(layer.weight.shape) for layer in field.layers] == [(64, 2), (64, 64), (64, 64), (2, 64)]


def test_the_mlp_depends_on_time(build):
    problem = build("mlp")
    at = [problem.func(torch.tensor(t, dtype=torch.float64), problem.y0) for t in (0.0, 1.0)]
    assert not torch.allclose(at[0], at[1])


def test_a_spiral_may_have_a_network(build):
    assert len(build("spiral").parameters) == 1
    assert len(build("spiral", width=8).parameters) == 5


class TestFlow:
    def test_its_trace_is_the_noise_through_the_jacobian(self, build):
        problem = build("flow", nonlinearity="tanh")
        field, t = problem.func, torch.tensor(0.3, dtype=torch.float64)
        change = field(t, problem.y0)
        for row, e, found in zip(problem.y0.detach(), field.noise, change, strict=True):
            J = torch.autograd.functional.jacobian(lambda z: field.velocity(t, z), row[:-1])
            # Both are sums of about a hundred float64 products.
            torch.testing.assert_close(found[-1], -(e @ J @ e), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(found[:-1], field.velocity(t, row[:-1]), rtol=1e-12, atol=1e-12)

    def test_under_no_grad_it_returns_the_same_value_without_a_graph(self, build):
        problem = build("flow")
        t = torch.tensor(0.3, dtype=torch.float64)
        with torch.no_grad():
            bare = problem.func(t, problem.y0)
        assert not bare.requires_grad
        assert torch.equal(bare, problem.func(t, problem.y0))

    def test_its_trace_is_differentiable(self, build):
        problem = build("flow", width=4)
        t = torch.tensor(0.3, dtype=torch.float64)
        state = problem.y0.detach()[:2].clone().requires_grad_()
        problem.func.noise = problem.func.noise[:2]
        assert torch.autograd.gradcheck(lambda y: problem.func(t, y)[:, -1], (state,))

    def test_its_loss_is_the_negative_log_likelihood(self, build):
        problem = build("flow")
        state = torch.zeros(2, 4, 3, dtype=torch.float64)
        # Two dimensions at the mode: -log p = log(2 pi), and l(T) = 0.25 is subtracted from log p.
        state[-1, :, -1] = 0.25
        assert problem.loss(state).item() == pytest.approx(np.log(2 * np.pi) + 0.25, rel=1e-15)

    def test_it_refuses_more_rows_than_there_are(self, build):
        with pytest.raises(ValueError, match="batch=21 asks for more than the 20 rows of wine"):
            build("flow", batch=21)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"depth": 3}, "mlp has no size 'depth'; it has state, width, layers"),
        ({"width": "wide"}, "size width of mlp must be of type int; got 'wide'"),
        ({"width": 2.5}, "size width of mlp must be of type int; got 2.5"),
    ],
)
def test_an_impossible_size_is_named(sizes, complaint):
    with pytest.raises(ValueError, match=complaint):
        PROBLEMS["mlp"].build(sizes, 3, "float64")


def test_an_unknown_dtype_is_named():
    with pytest.raises(ValueError, match="dtype must be one of float32, float64; got 'float16'"):
        PROBLEMS["mlp"].build({}, 3, "float16")


def test_a_measuring_process_imports_no_heavy_module():
    heavy = "pandas matplotlib sklearn scipy torchdiffeq"
    code = (
        "import sys, symplectic_bench.run.cells, symplectic_bench.problems, symplectic_bench.contenders\n"
        f"print([m for m in {heavy!r}.split() if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
