"""Many outputs inside a step: formed and transposed together, they are those formed one by one."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, odeint, odeint_dense, solve
from symplectic_adjoint.field import few_launches
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS, IMPLICIT_METHODS
from symplectic_adjoint.steps import dense_outputs, output_cotangents, runge_kutta
from symplectic_adjoint.steps.dense_outputs import most_at_once, output_weights
from tests.fields import Rotation, SmallNet, start, weighted_loss
from tests.gradients import EXACT, FORWARD
from tests.launches import count_launches
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
DENSE = [name for name, method in EXPLICIT_METHODS.items() if method.interpolant.rows and name != "leapfrog"]
T = torch.linspace(0.0, 1.0, 90, dtype=torch.float64)
FIXED = {"step_size": 0.3}  # no output but the first and the last lies at the end of a step


@pytest.fixture
def one_by_one(monkeypatch):
    """Return a function that forms outputs one by one from then on."""

    def apply():
        for module in (runge_kutta, output_cotangents):
            monkeypatch.setattr(module, "most_at_once", lambda y: 1)

    return apply


@pytest.fixture
def counted(monkeypatch):
    """Return a list of how many outputs were formed, and how many transposed, at once."""
    counts = {"formed": [], "transposed": []}
    form, transpose = dense_outputs.outputs_together, dense_outputs.transpose_outputs

    def formed(y, h, interpolant, sigmas, *others):
        counts["formed"].append(len(sigmas))
        return form(y, h, interpolant, sigmas, *others)

    def transposed(interpolant, sigmas, mus):
        counts["transposed"].append(len(sigmas))
        return transpose(interpolant, sigmas, mus)

    monkeypatch.setattr(runge_kutta, "outputs_together", formed)
    monkeypatch.setattr(output_cotangents, "transpose_outputs", transposed)
    return counts


def gradients(func, y0, t, loss=weighted_loss, **keywords):
    """Return ys, and the gradients in y0 and the parameters."""
    y0 = y0.detach().requires_grad_()
    ys = odeint(func, y0, t, **keywords)
    inputs = [y0, *(p for p in func.parameters() if p.requires_grad)]
    return [ys, *torch.autograd.grad(loss(ys.abs() if ys.is_complex() else ys), inputs, allow_unused=True)]


def assert_same(got, expected, bound=ROUNDING):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or relative_error(a, b) < bound


@pytest.mark.parametrize("name", METHODS)
def test_their_weights_are_those_of_one_output(name):
    interpolant = METHODS[name].interpolant
    sigmas = [0.0, 1e-9, 0.25, 0.5, 0.5000001, 0.75, 1.0 - 1e-12, 1.0]
    together = output_weights(interpolant, sigmas)
    for sigma, column in zip(sigmas, together.unbind(1), strict=True):
        one = interpolant.weights_at(sigma)
        assert column.tolist() == [one[i] for i in interpolant.used_rows]
        assert not any(one[i] for i in range(len(one)) if i not in interpolant.used_rows)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", DENSE)
def test_gradients_are_those_of_autograd_on_the_recorded_grid(method, gradient, counted):
    """With cotangents of times, whose outputs a graph of the times needs one by one."""
    func, y0 = SmallNet(), start().requires_grad_()
    for t in (T, T.clone().requires_grad_()) if gradient in FORWARD else (T,):
        solution = solve(func, y0, t, method=method, options=FIXED, gradient=gradient)
        inputs = [y0, *func.parameters(), *([t] if t.requires_grad else [])]
        ys = replay(func, METHODS[method], solution.grid, y0, t)
        got, expected = (torch.autograd.grad(weighted_loss(x), inputs, allow_unused=True) for x in (solution.ys, ys))
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING
    assert max(counted["formed"]) >= 20
    assert gradient in ("backprop", "baseline") or max(counted["transposed"]) >= 20


@pytest.mark.parametrize("gradient", FORWARD)
@pytest.mark.parametrize("method", IMPLICIT_METHODS)
def test_implicit_methods(method, gradient, one_by_one):
    net = SmallNet()
    func = (net, lambda t, y: -3.0 * y) if METHODS[method].additive else net

    def found():
        y0 = start().requires_grad_()
        ys = odeint(func, y0, T, method=method, options=FIXED, gradient=gradient)
        return [ys, *torch.autograd.grad(weighted_loss(ys), [y0, *net.parameters()], allow_unused=True)]

    together = found()
    one_by_one()
    assert_same(together, found(), 1e-10)  # both solve their stages to within that


LOSSES = {
    "a sum, whose cotangents are one number": lambda ys: ys.sum(),
    "a transposed view": lambda ys: (ys.transpose(0, 2) * torch.linspace(0.0, 1.0, ys.shape[0])).sin().sum(),
    "few of the outputs": lambda ys: weighted_loss(ys[[3, 40, 41, 88]]),
    "the last one": lambda ys: weighted_loss(ys[-1]),
}


@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_any_loss(loss, gradient, one_by_one):
    how = {"loss": loss, "options": FIXED, "gradient": gradient}
    together = gradients(SmallNet(), start(), T, **how)
    one_by_one()
    assert_same(together, gradients(SmallNet(), start(), T, **how))


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [
        (torch.complex128, ROUNDING),
        (torch.complex64, 2e-6),  # a few roundings of float32, 1.2e-7 each
        (torch.float32, 2e-6),
        (torch.bfloat16, 0.02),  # a few roundings of func's values; the state itself is kept in float32
        (torch.float16, 0.01),
    ],
)
@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_every_dtype(dtype, bound, gradient, one_by_one):
    y0 = torch.randn(4, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(1)).to(dtype)
    how = {"options": FIXED, "gradient": gradient}
    got = gradients(Rotation(dtype), y0, T, **how)
    one_by_one()
    expected = gradients(Rotation(dtype), y0, T, **how)
    assert all(relative_error(a, b) <= bound for a, b in zip(got, expected, strict=True))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

    def forward(self, t, y):
        return self.rate * y * torch.cos(t)


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 3), (0, 3)])
@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_every_shape_in_both_directions(shape, gradient, one_by_one):
    y0 = torch.ones(shape, dtype=torch.float64)
    found = [[gradients(Scaled(), y0, t, options=FIXED, gradient=gradient) for t in (T, T.flip(0))]]
    one_by_one()
    found += [[gradients(Scaled(), y0, t, options=FIXED, gradient=gradient) for t in (T, T.flip(0))]]
    for together, expected in zip(*found, strict=True):
        assert_same(together, expected)


@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_more_outputs_than_are_formed_at_once(gradient, counted, one_by_one):
    t = torch.linspace(0.0, 1.0, 500, dtype=torch.float64)
    together = gradients(SmallNet(), start(), t, options=FIXED, gradient=gradient)
    assert max(counted["formed"]) == dense_outputs.MOST_AT_ONCE and sum(counted["formed"]) > 490
    one_by_one()
    assert_same(together, gradients(SmallNet(), start(), t, options=FIXED, gradient=gradient))


def test_large_states_are_formed_one_by_one():
    """A slab of them would leave the caches between two stages."""
    most = dense_outputs.MOST_BYTES // (8 * dense_outputs.FEWEST_AT_ONCE)
    assert most_at_once(torch.zeros(most, dtype=torch.float64)) == dense_outputs.FEWEST_AT_ONCE
    assert most_at_once(torch.zeros(most + 1, dtype=torch.float64)) == 1
    assert most_at_once(torch.zeros(2, dtype=torch.float64)) == dense_outputs.MOST_AT_ONCE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_formed_one_by_one(dtype):
    """The weights would be rounded to it."""
    assert most_at_once(torch.zeros(2, dtype=dtype)) == 1


def test_an_adaptive_solve_with_pinned_and_repeated_outputs(one_by_one):
    """Repeated times, and outputs at the ends of steps among many inside."""
    t = torch.cat([torch.linspace(0.0, 0.5, 30), torch.tensor([0.5, 0.5]), torch.linspace(0.51, 1.0, 30)]).double()
    how = {"rtol": 1e-4, "atol": 1e-4, "options": {"jump_t": torch.tensor([0.5], dtype=torch.float64)}}
    together = gradients(SmallNet(), start(), t, **how)
    one_by_one()
    assert_same(together, gradients(SmallNet(), start(), t, **how))


@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
def test_precise_sums_add_every_cotangent_by_itself(accumulate, counted):
    """One sum of them in the state's precision would be as coarse as without `accumulate`."""
    func, y0, t = SmallNet().float(), start().float(), T.float()
    gradients(func, y0, t, options=FIXED, accumulate=accumulate)
    assert counted["formed"] and not counted["transposed"]


def test_float32_sums_are_no_coarser_than_one_by_one(one_by_one):
    t = torch.linspace(0.0, 1.0, 3_000, dtype=torch.float64)
    exact = gradients(SmallNet(), start(), t, options=FIXED)
    together = gradients(SmallNet().float(), start().float(), t.float(), options=FIXED)
    one_by_one()
    single = gradients(SmallNet().float(), start().float(), t.float(), options=FIXED)
    errors = [
        [relative_error(x.double(), y) for x, y in zip(xs[1:], exact[1:], strict=True) if x is not None]
        for xs in (together, single)
    ]
    assert max(errors[0]) <= max(errors[1])


def test_second_derivatives(one_by_one):
    def second():
        func, y = SmallNet(), start().requires_grad_()
        (first,) = torch.autograd.grad(weighted_loss(odeint(func, y, T, options=FIXED)), y, create_graph=True)
        return torch.autograd.grad(first.square().sum(), y)[0]

    together = second()
    one_by_one()
    assert relative_error(together, second()) < ROUNDING


def test_transforms_and_batched_cotangents():
    func, y0 = SmallNet(), start()

    def mean(y):
        return odeint(func, y, T, options=FIXED).mean(0)

    torch.testing.assert_close(torch.func.vmap(mean)(y0), mean(y0), rtol=1e-12, atol=1e-12)
    y = y0.clone().requires_grad_()
    ys, vectors = mean(y), torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)
    (rows,) = torch.autograd.grad(ys, y, vectors, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(ys, y, v, retain_graph=True)[0] for v in vectors]
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-12, atol=1e-12)
    jacobian = torch.func.jacrev(mean)(y0)
    torch.testing.assert_close(jacobian.flatten(0, 1).reshape(12, 4, 3), rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", [{"capture": True}, {"compile": True}, {"gradient": sa.Symplectic(graphs=3)}])
def test_other_ways_of_a_step(how, one_by_one):
    together = gradients(SmallNet(), start(), T, options=FIXED, **how)
    one_by_one()
    assert_same(together, gradients(SmallNet(), start(), T, options=FIXED))


def test_a_tuple_state_and_an_error_on_the_way():
    func = SmallNet()

    def pair(t, state):
        y, _ = state
        return func(t, y), y.square().sum(-1)

    y0 = (start().requires_grad_(), torch.zeros(4, dtype=torch.float64))
    ys, totals = odeint(pair, y0, T, options=FIXED)
    alone = odeint(func, y0[0], T, options=FIXED)
    assert relative_error(ys, alone) < ROUNDING and totals.shape == (90, 4)
    (totals[-1].sum() + ys.sum()).backward()
    assert y0[0].grad is not None and bool((totals.diff(dim=0) > 0).all())


def test_their_number_adds_no_launches(monkeypatch):
    """As long as those of a step are formed at once."""
    monkeypatch.setattr(few_launches, "DEVICES", ("cpu",))
    func, y0 = SmallNet(), start().requires_grad_()

    def ours_of(outputs):
        t = torch.linspace(0.0, 1.0, outputs, dtype=torch.float64)
        solution, forward = count_launches(solve, func, y0, t, method="dopri5", options=FIXED)
        _, backward = count_launches(weighted_loss(solution.ys).backward)
        return forward.ours, backward.ours

    many, few = ours_of(90), ours_of(45)
    assert many[0] <= few[0] and many[1] <= few[1]


@pytest.mark.parametrize("method", ["dopri5", "rk4", "kvaerno3"])
def test_a_dense_solution_at_many_times(method, one_by_one):
    times = torch.linspace(0.0, 1.0, 333, dtype=torch.float64)[torch.randperm(333)]
    with torch.no_grad():
        solution = odeint_dense(SmallNet(), start(), 0.0, 1.0, method=method, rtol=1e-4, atol=1e-4)
        together = solution(times)
        one_by_one()
        assert relative_error(together, torch.stack([solution(t) for t in times])) < ROUNDING
