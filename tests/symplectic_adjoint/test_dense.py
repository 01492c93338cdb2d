"""odeint_dense: the solution as a function of time."""

from functools import partial

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error

INTERPOLATING = [name for name, tableau in EXPLICIT_METHODS.items() if tableau.interpolates]
ROUNDING = 1e-12  # as in test_exactness


def options_for(method):
    return None if sa.METHODS[method].adaptive else {"step_size": 0.13}


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("method", INTERPOLATING)
def test_values_equal_those_of_odeint_at_the_same_times(method, direction):
    net, times = SmallNet(), direction * torch.tensor([0.0, 0.2, 0.21, 0.7, 1.0], dtype=torch.float64)
    keywords = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": options_for(method)}
    dense = sa.odeint_dense(net, start(), 0.0, direction, **keywords)
    ys = sa.odeint(net, start(), times, **keywords)
    shuffle = torch.tensor([3, 0, 4, 1, 2, 3])
    assert torch.equal(dense(times[shuffle]), ys[shuffle])  # recomputed, as the net requires a gradient
    assert torch.equal(dense(times[3]), ys[3])
    with torch.no_grad():
        stored = sa.odeint_dense(net, start(), 0.0, direction, **keywords)
        assert torch.equal(stored(times[shuffle]), ys[shuffle])


@pytest.mark.parametrize("gradient", EXACT)
def test_gradients_are_those_of_odeint_on_the_same_steps(gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    t0, t1 = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, 1.0))
    times = torch.tensor([0.7, 0.2, 0.21], dtype=torch.float64, requires_grad=True)
    inputs = [y0, t0, t1, times, net.twice, net.inner.weight]
    dense = sa.odeint_dense(net, y0, t0, t1, rtol=1e-4, atol=1e-4, gradient=gradient)
    got = torch.autograd.grad(weighted_loss(dense(times)), inputs, allow_unused=True)
    t = torch.cat([t0.reshape(1), times[[1, 2, 0]], t1.reshape(1)])
    ys = sa.odeint(net, y0, t, rtol=1e-4, atol=1e-4, gradient="backprop")[[3, 1, 2]]
    expected = torch.autograd.grad(weighted_loss(ys), inputs, allow_unused=True)
    # dL/dt1 is a difference of terms a thousand times larger, as no output is at t1.
    bounds = [ROUNDING, ROUNDING, 1e3 * ROUNDING, ROUNDING, ROUNDING, ROUNDING]
    assert all(relative_error(a, b) < bound for a, b, bound in zip(got, expected, bounds, strict=True))


def test_evaluating_without_a_gradient_does_not_call_func():
    func = Counted(SmallNet())
    with torch.no_grad():
        dense = sa.odeint_dense(func, start(), 0.0, 1.0, rtol=1e-5, atol=1e-5)
        calls = func.calls
        assert calls == dense.stats.f_calls_forward
        dense(torch.linspace(0, 1, 500, dtype=torch.float64))
    assert func.calls == calls


def test_a_structured_state_comes_back_in_its_structure():
    dense = sa.odeint_dense(
        lambda t, y: {"x": y["v"], "v": -y["x"]},
        {"x": start(), "v": start(seed=2)}, 0.0, 1.0,
    )  # fmt: skip
    assert dense(0.5)["x"].shape == (4, 3)
    assert dense(torch.linspace(0, 1, 7))["v"].shape == (7, 4, 3)


def test_invalid_requests_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="'dopri8' has no dense output as accurate as its steps: use 'dop853'"):
        sa.odeint_dense(SmallNet(), start(), 0.0, 1.0, method="dopri8")
    net = SmallNet()
    dense = sa.odeint_dense(net, start(), 0.0, 1.0, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"t must lie between t0 = 0 and t1 = 1, got 1.5"):
        dense(1.5)
    with torch.no_grad():
        net.twice.add_(1.0)
    with pytest.raises(RuntimeError, match=r"shape \(3,\) was changed in place since odeint_dense solved"):
        dense(0.5)


@pytest.mark.parametrize("gradient", [*EXACT, "continuous"])
def test_a_repeated_time_has_a_gradient_of_its_own(gradient):
    dense = sa.odeint_dense(lambda t, y: -y, torch.ones(1).double(), 0.0, 1.0, gradient=gradient)
    times = torch.tensor([0.5, 0.0, 1.0, 0.5, 0.0, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    ys = dense(times)
    (slopes,) = torch.autograd.grad(ys.sum(), times)
    assert torch.equal(ys[:3], ys[3:6])
    assert slopes.tolist() == pytest.approx((-torch.exp(-times)).tolist(), rel=1e-5)


@pytest.mark.parametrize("gradient", EXACT)
def test_times_at_the_ends_have_gradients(gradient):
    dense = sa.odeint_dense(lambda t, y: -y, torch.ones(1).double(), 0.0, 1.0, gradient=gradient)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(dense(times).sum(), times)
    assert slopes.tolist() == pytest.approx((-torch.exp(-times)).tolist(), rel=1e-5)


def test_every_call_belongs_to_the_same_solve():
    """Dropout keeps one mask however often it is evaluated, and batch statistics are updated only once."""
    dense = sa.odeint_dense(lambda t, y: torch.dropout(y, 0.5, True), torch.ones(6, requires_grad=True), 0.0, 1.0)
    assert torch.equal(dense(1.0), dense(1.0))
    assert torch.equal(dense(0.5), dense(torch.tensor([0.5, 0.6]))[0])
    norm = torch.nn.BatchNorm1d(3).double()
    dense = sa.odeint_dense(Normalized(norm), start(), 0.0, 1.0, rtol=1e-3, atol=1e-3)
    batches = norm.num_batches_tracked.item()
    before = dense(0.5)
    norm.eval()
    assert torch.equal(dense(0.5), before) and norm.num_batches_tracked.item() == batches


class Normalized(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, t, y):
        return self.norm(y)


@pytest.mark.parametrize("method", INTERPOLATING)
def test_a_stored_solution_does_not_move_with_the_parameters(method):
    net = SmallNet()
    with torch.no_grad():
        dense = sa.odeint_dense(
            net, start(), 0.0, 1.0, method=method, rtol=1e-4, atol=1e-4, options=options_for(method)
        )
        before = [dense(x) for x in (0.1, 0.5, 0.99)]
        for p in net.parameters():
            p.mul_(7.0)
        assert all(torch.equal(dense(x), y) for x, y in zip((0.1, 0.5, 0.99), before, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, in jvp
def test_forward_mode_goes_through_a_stored_solution():
    with torch.no_grad():
        dense = sa.odeint_dense(lambda t, y: -y, torch.ones(1).double(), 0.0, 1.0)
    half = torch.tensor(0.5, dtype=torch.float64)
    _, slope = torch.func.jvp(lambda x: dense(x).sum(), (half,), (torch.ones_like(half),))
    assert slope.item() == pytest.approx(-torch.exp(-half).item(), rel=1e-6)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("place", ["cell", "partial", "module"])
def test_a_tensor_that_func_finds_and_that_was_computed_before_passes_its_gradient_on(gradient, place):
    raw = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0, rate = start(), 2 * raw

    class Decay(torch.nn.Module):
        def forward(self, t, y):
            return -self.rate * y

    module = Decay()
    module.rate = rate
    func = {"cell": lambda t, y: -rate * y, "partial": partial(lambda rate, t, y: -rate * y, rate), "module": module}
    dense = sa.odeint_dense(func[place], y0, 0.0, 1.0, gradient=gradient, rtol=1e-9, atol=1e-9)
    (bar,) = torch.autograd.grad((dense(0.25) + dense(torch.tensor([0.5, 1.0])).sum(0)).sum(), raw, retain_graph=True)
    # d/draw exp(-2 raw t) = -2 t exp(-2 raw t); the tolerance of each of some ten steps, and of dense output.
    expected = sum(-2 * t * torch.exp(-1.4 * torch.tensor(t, dtype=torch.float64)) * y0.sum() for t in (0.25, 0.5, 1.0))
    assert relative_error(bar, expected) < 1e-6
