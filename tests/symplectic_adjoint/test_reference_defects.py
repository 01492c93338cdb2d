"""Defects found in the published code of the symplectic adjoint method, one test each: this library has none of them.

The numbers are those of the list that they were recorded in when that code was examined.
"""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error, replay

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness
LOOSE = {"rtol": 1e-4, "atol": 1e-4}
TIGHT = {"rtol": 1e-8, "atol": 1e-10}

every_gradient = pytest.mark.parametrize("gradient", STANDARD)
exact_gradients = pytest.mark.parametrize("gradient", EXACT)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def vector(*values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def gradients(func, ys, *inputs):
    return torch.autograd.grad(weighted_loss(ys), [*inputs, *func.parameters()], allow_unused=True)


def agree(got, expected, bound=ROUNDING):
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound


@every_gradient
def test_defect_01_euler_has_a_gradient(gradient):
    theta, y0, steps = scalar(-0.7), vector(1.0, 2.0, requires_grad=True), 10
    ys = sa.odeint(
        lambda t, y: theta * y, y0, T, method="euler", options={"step_size": 1 / steps}, params=(theta,),
        gradient=gradient,
    )  # fmt: skip
    of_theta, of_y0 = torch.autograd.grad(ys[-1].sum(), [theta, y0])
    # y_n = (1 + h theta)^n y0; the continuous gradient's own Euler steps err by about h.
    factor = 1 - 0.7 / steps
    bound = ROUNDING if gradient in EXACT else 0.2
    assert of_theta.item() == pytest.approx(factor ** (steps - 1) * 3.0, rel=bound)
    assert of_y0.tolist() == pytest.approx([factor**steps] * 2, rel=bound)


@every_gradient
def test_defect_02_fehlberg2_estimates_its_error(gradient):
    def f_calls(method):
        func, y0 = Counted(SmallNet()), start().requires_grad_()
        sa.odeint(func, y0, T, method=method, gradient=gradient, **LOOSE)
        return func.calls

    # Both are of order 2(1) with 3 and 2 stages; with weights that do not vanish on constants it was 180 times more.
    assert f_calls("fehlberg2") < 3 * f_calls("adaptive_heun")
    assert sum(sa.METHODS["fehlberg2"].b_error) == 0


@every_gradient
def test_defect_03_an_unused_parameter_gets_no_gradient_and_breaks_nothing(gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    weighted_loss(sa.odeint(net, y0, T, gradient=gradient, **LOOSE)).backward()
    assert net.unused.grad is None
    assert all(p.grad is not None and p.grad.any() for p in (y0, *net.parameters()) if p is not net.unused)


@every_gradient
def test_defect_03_a_field_that_does_not_use_its_state_has_gradients(gradient):
    slope, y0 = vector(0.5, -1.0, requires_grad=True), vector(1.0, 2.0, requires_grad=True)
    ys = sa.odeint(lambda t, y: slope * torch.cos(t), y0, T, params=(slope,), gradient=gradient, **TIGHT)
    of_slope, of_y0 = torch.autograd.grad(ys[-1].sum(), [slope, y0])
    # y = y0 + slope sin t
    assert torch.allclose(of_slope, torch.full((2,), math.sin(1.0)).double(), rtol=1e-7)
    assert torch.allclose(of_y0, torch.ones(2).double(), rtol=1e-7)


@every_gradient
def test_defect_04_a_func_that_is_no_module_loses_no_gradient(gradient):
    theta, y0 = scalar(-0.7), vector(1.0, 2.0, requires_grad=True)
    solve = partial(sa.odeint, gradient=gradient, **TIGHT)
    if gradient != "backprop":  # whose graph holds every tensor that func uses
        with pytest.raises(sa.LostGradient):
            solve(lambda t, y: theta * y, y0, T)
    (of_theta,) = torch.autograd.grad(solve(lambda t, y: theta * y, y0, T, params=(theta,))[-1].sum(), theta)
    assert of_theta.item() == pytest.approx(3.0 * math.exp(-0.7), rel=1e-6)
    net = SmallNet()
    by_method = gradients(net, solve(net.forward, start(), T))
    agree(by_method, gradients(net, solve(net, start(), T)))


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

    def forward(self, t, y):
        return self.rate * y


@every_gradient
def test_defect_05_a_data_parallel_replica_loses_no_gradient(gradient):
    """A replica's parameters are plain attributes, computed from the module's, which parameters() does not list."""
    module = Decay()
    replica = module._replicate_for_data_parallel()
    replica.rate = module.rate * 1.0  # stands for the copy to another device, as torch makes it
    assert not list(replica.parameters())
    sa.odeint(replica, vector(1.0, 2.0), T, gradient=gradient, **TIGHT)[-1].sum().backward()
    assert module.rate.grad.item() == pytest.approx(3.0 * math.exp(-0.7), rel=1e-6)


@every_gradient
def test_defect_06_a_retained_graph_can_be_used_again(gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    loss = weighted_loss(sa.odeint(net, y0, T, gradient=gradient, **LOOSE))
    first, second = (torch.autograd.grad(loss, [y0, net.twice], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_gradient
def test_defect_06_gradcheck_runs(gradient):
    net, y0 = SmallNet(), start(batch=1).requires_grad_()

    def ys(y0):
        return sa.odeint(net, y0, T, method="rk4", options={"step_size": 0.1}, gradient=gradient)

    bound = 1e-7 if gradient in EXACT else 1e-3  # of the order of h^4, for an approximation
    assert torch.autograd.gradcheck(ys, (y0,), atol=bound, rtol=bound, fast_mode=True)


@exact_gradients
@pytest.mark.parametrize("victim", ["y0", "parameter", "frozen parameter"])
def test_defect_07_a_change_in_place_between_the_passes_raises(victim, gradient):
    net, y0 = SmallNet(), start().requires_grad_()
    state = y0 * 1.0
    if victim == "frozen parameter":
        net.inner.weight.requires_grad_(False)
    ys = sa.odeint(net, state, T, gradient=gradient, **LOOSE)
    with torch.no_grad():
        (state if victim == "y0" else net.inner.weight).mul_(1.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@exact_gradients
def test_defect_08_a_gradient_has_a_gradient(gradient):
    theta, y0 = scalar(0.3), vector(1.0, 2.0)
    ys = sa.odeint(lambda t, y: theta * y, y0, T, params=(theta,), gradient=gradient, **TIGHT)
    (first,) = torch.autograd.grad(ys[-1].sum(), theta, create_graph=True)
    assert first.requires_grad
    (second,) = torch.autograd.grad(first, theta)
    # y = e^(theta t) y0, and at t = 1 every derivative in theta is y itself
    assert second.item() == pytest.approx(3.0 * math.exp(0.3), rel=1e-5)


def test_defect_08_where_there_is_none_it_is_refused():
    theta = scalar(0.3)
    ys = sa.odeint(lambda t, y: theta * y, vector(1.0), T, params=(theta,), gradient="continuous", **LOOSE)
    with pytest.raises(sa.UnsupportedCombination, match="create_graph"):
        torch.autograd.grad(ys.sum(), theta, create_graph=True)


@every_gradient
def test_defect_09_times_have_gradients(gradient):
    t = vector(0.1, 0.4, 1.0, requires_grad=True)
    ys = sa.odeint(lambda t, y: -0.7 * y * torch.cos(t), vector(2.0), t, gradient=gradient, **TIGHT)
    weights = vector(0.5, -1.0, 2.0)
    (of_t,) = torch.autograd.grad((weights[:, None] * ys).sum(), t)
    # y(t_j) = 2 exp(0.7 (sin t_0 - sin t_j))
    slopes = 0.7 * torch.cos(t.detach()) * ys[:, 0].detach()
    of_start = 0.7 * math.cos(0.1) * (weights[1:] * ys[1:, 0].detach()).sum()
    assert torch.allclose(of_t, torch.cat([of_start[None], -(weights * slopes)[1:]]), rtol=1e-5)


@every_gradient
@pytest.mark.parametrize("at_the_jump", ["before", "after"])
@pytest.mark.parametrize("method", ["adaptive_heun", "bosh3", "dopri5", "dopri8", "rk4"])
def test_defect_10a_the_gradient_over_a_jump_is_right(method, at_the_jump, gradient):
    """Whichever of its two values f has at the jump itself."""
    theta, y0, tau = scalar(-0.7), vector(1.0, 2.0, requires_grad=True), 0.45

    def func(t, y):
        is_before = t < tau if at_the_jump == "after" else t <= tau
        return torch.where(is_before, theta, -2.0 * theta) * y

    adaptive = sa.METHODS[method].adaptive
    options = {"jump_t": [tau], **({} if adaptive else {"step_size": 0.1})}
    tolerances = LOOSE if method == "adaptive_heun" else {"rtol": 1e-6, "atol": 1e-8}
    ys = sa.odeint(func, y0, T, method=method, options=options, params=(theta,), gradient=gradient, **tolerances)
    of_theta, of_y0 = torch.autograd.grad(ys[-1].sum(), [theta, y0])
    # y(1) = exp(theta (tau - 2 (1 - tau))) y0
    exponent = tau - 2.0 * (1.0 - tau)
    bound = 1e-2 if method == "adaptive_heun" else 1e-4  # of the solve; the defect was worth 0.1 and more
    assert of_theta.item() == pytest.approx(exponent * math.exp(-0.7 * exponent) * 3.0, rel=bound)
    assert of_y0.tolist() == pytest.approx([math.exp(-0.7 * exponent)] * 2, rel=bound)


@exact_gradients
@pytest.mark.parametrize("method", ["adaptive_heun", "bosh3", "dopri5", "dopri8", "rk4"])
def test_defect_10a_the_gradient_over_a_jump_is_that_of_the_steps(method, gradient):
    net, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()

    def func(t, y):
        return torch.where(t < 0.45, 1.0, -0.5) * net(t, y)

    options = {"jump_t": [0.45], **({} if sa.METHODS[method].adaptive else {"step_size": 0.1})}
    solution = sa.solve(
        func, y0, t, method=method, options=options, params=(*net.parameters(),), gradient=gradient, **LOOSE
    )
    expected = replay(func, sa.METHODS[method], solution.grid, y0, t)
    agree(gradients(net, solution.ys, y0, t), gradients(net, expected, y0, t))


@exact_gradients
@pytest.mark.parametrize(
    ("start", "jump"), [(0.0948740334359443, 0.7198655451357155), (0.009653160562280216, 0.6999963143393383)]
)
def test_defect_10a_rounding_moves_no_step_over_a_jump(start, jump, gradient):
    """With these numbers start + (jump - start) is not jump but the number after it."""
    assert start + (jump - start) > jump

    def func(t, y):
        return torch.where(t < jump, 1.0, -3.0) * y

    y0, t = vector(1.0), vector(start, 1.0, requires_grad=True)
    solution = sa.solve(func, y0, t, method="heun2", options={"jump_t": [jump]}, gradient=gradient)
    (got,) = torch.autograd.grad(solution.ys[-1], t)
    (expected,) = torch.autograd.grad(replay(func, sa.METHODS["heun2"], solution.grid, y0, t)[-1], t)
    assert relative_error(got, expected) < ROUNDING


@every_gradient
@pytest.mark.parametrize("outputs", ["interpolate", "land"])
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rk4"])
def test_defect_10b_no_jump_is_lost_to_an_output_before_it(method, outputs, gradient):
    """Piecewise constant slopes are integrated exactly, if every step ends where the slope changes."""
    jumps = [0.5, 0.8]

    def func(t, y):
        return torch.where(t < jumps[0], 1.0, torch.where(t < jumps[1], -2.0, 3.0)) * torch.ones_like(y)

    adaptive = sa.METHODS[method].adaptive
    options = {"jump_t": jumps, "outputs": outputs, **({"first_step": 5.0} if adaptive else {"step_size": 5.0})}
    y0, t = vector(0.0, requires_grad=True), vector(0.0, 0.45, 0.5, 0.79, 0.9, 1.0)
    ys = sa.odeint(func, y0, t, method=method, options=options, gradient=gradient, **LOOSE)
    assert ys[:, 0].tolist() == pytest.approx([0.0, 0.45, 0.5, -0.08, 0.2, 0.5], abs=1e-14)
    ys.sum().backward()
    assert y0.grad.item() == pytest.approx(6.0, rel=1e-12)


@every_gradient
@pytest.mark.parametrize("option", ["jump_t", "step_t"])
def test_defect_10c_jumps_and_steps_are_met_in_decreasing_time(option, gradient):
    def func(t, y):
        return torch.where(t > -0.45, 1.0, -3.0) * y

    y0 = vector(1.0, requires_grad=True)
    for method, how in (("dopri5", {}), ("rk4", {"step_size": 0.05})):
        options = {option: vector(-0.8, -0.45), **how}
        solution = sa.solve(func, y0, -T, method=method, options=options, gradient=gradient, rtol=1e-6, atol=1e-8)
        assert {-0.8, -0.45} <= set(solution.grid.t.tolist())
        (of_y0,) = torch.autograd.grad(solution.ys[-1], y0)
        if option == "jump_t":  # y(-1) = exp(-0.45 + 3 0.55) y0
            assert of_y0.item() == pytest.approx(math.exp(-0.45 + 3 * 0.55), rel=1e-4)


@every_gradient
def test_defect_11_times_in_float32_count_for_their_own_interval(gradient):
    """0.7 is another number in float32, before or after 0.7 itself: its output's gradient must not move for it."""
    net, y0 = SmallNet(), start().requires_grad_()
    with pytest.raises(ValueError, match="option 'dtype'"):
        sa.odeint(net, y0, T, options={"dtype": torch.float32}, gradient=gradient)
    t = torch.tensor([0.0, 0.3, 0.7, 1.0])
    got, expected = (
        gradients(net, sa.odeint(net, y0, times, options={"outputs": "land"}, gradient=gradient, **LOOSE), y0)
        for times in (t, t.double())
    )
    agree(got, expected)


@every_gradient
def test_defect_12_autocast_is_the_same_on_the_way_back(gradient):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))

    def grads(gradient, enabled=True):
        # Without autocast's cache of weights, through which backprop would add up all of dL/dtheta in bfloat16.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled, cache_enabled=False):
            ys = sa.odeint(
                lambda t, y: net(y).float(), torch.linspace(-1, 1, 12).reshape(4, 3), T.float(), method="rk4",
                options={"step_size": 0.1}, params=(*net.parameters(),), gradient=gradient,
            )  # fmt: skip
        return torch.cat([bar.flatten() for bar in torch.autograd.grad(weighted_loss(ys), list(net.parameters()))])

    expected = grads("backprop")
    distance = relative_error(grads("backprop", enabled=False), expected)  # of another precision
    # A last bit of float32 may tip the last digit of a bfloat16 cotangent; it does so in few of them.
    assert relative_error(grads(gradient), expected) < (distance / 10 if gradient in EXACT else distance)


class Noisy(nn.Module):
    """Dropout and batch normalisation in a field."""

    def __init__(self, dropout=0.0, normalise=False):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.normalise = nn.BatchNorm1d(3, dtype=torch.float64) if normalise else nn.Identity()
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.outer(self.dropout(torch.tanh(self.normalise(self.inner(y)))))


@exact_gradients
def test_defect_13_random_numbers_are_the_same_on_the_way_back(gradient):
    net = Noisy(dropout=0.5)

    def solve(gradient, seed):
        torch.manual_seed(seed)
        return sa.odeint(net, start(), T, gradient=gradient, **LOOSE)

    ys = solve(gradient, seed=3)
    torch.manual_seed(99)  # whatever was drawn between the passes
    got = gradients(net, ys)
    agree(got, gradients(net, solve("backprop", seed=3)))
    assert not torch.equal(solve(gradient, seed=4), ys)


@every_gradient
def test_defect_13_running_statistics_are_updated_on_the_way_there_alone(gradient):
    def solve(gradient):
        net = Noisy(normalise=True)
        return net, sa.odeint(net, start(), T, gradient=gradient, **LOOSE)

    def statistics(net):
        return torch.cat(
            [net.normalise.running_mean, net.normalise.running_var, net.normalise.num_batches_tracked[None]]
        )

    (net, ys), (plain, _) = solve(gradient), solve("backprop")
    assert torch.equal(statistics(net), statistics(plain)) and net.normalise.num_batches_tracked > 10
    before = net.calls
    ys.sum().backward()
    assert gradient == "backprop" or net.calls > before
    assert torch.equal(statistics(net), statistics(plain))


@every_gradient
def test_defect_14_the_callers_tensors_are_left_as_they_were(gradient):
    net, y0, t = SmallNet(), start(), T.clone()
    before = y0.clone()
    sa.odeint(net, y0, t, gradient=gradient, **LOOSE).sum().backward()
    assert not y0.requires_grad and not t.requires_grad and y0.grad is None
    assert torch.equal(y0, before) and torch.equal(t, T)


@exact_gradients
def test_defect_15_the_choice_of_the_first_step_is_not_differentiated(gradient):
    """No first_step is given, so that it is chosen by f; backprop's gradient is that of the recorded steps all the
    same."""
    net, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    solution = sa.solve(net, y0, t, gradient=gradient, **LOOSE)
    agree(
        gradients(net, solution.ys, y0, t),
        gradients(net, replay(net, sa.METHODS["dopri5"], solution.grid, y0, t), y0, t),
    )


@every_gradient
@pytest.mark.parametrize("norm", [None, lambda y: max(part.abs().max() for part in y)])
def test_defect_16_errors_count_whatever_their_sign_is(norm, gradient):
    """The mirrored problem has errors of the other sign and must take the same steps."""

    def func(t, y):
        return torch.sin(3.0 * t) * y[0], y[0] * torch.cos(y[1]) - y[1] * y[1].abs()

    def steps(sign):
        y0 = tuple((sign * part).requires_grad_() for part in (vector(0.9, 0.1), vector(0.5, 1.5)))
        options = {} if norm is None else {"norm": norm}
        return sa.solve(func, y0, 4 * T, options=options, gradient=gradient, **LOOSE).grid.h

    assert torch.equal(steps(1.0), steps(-1.0)) and len(steps(1.0)) > 5


@every_gradient
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rtol": -1e-3}, ValueError, "rtol"),
        ({"atol": -1e-3}, ValueError, "atol"),
        ({"func": lambda t, y: y[:1]}, ValueError, "shape"),
        ({"y0": torch.full((4, 3), math.nan)}, sa.NonFiniteError, "y0"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ValueError, "t must be strictly"),
    ],
)
def test_defect_17_nonsense_is_refused_by_name(change, error, message, gradient):
    arguments = {"func": lambda t, y: -y, "y0": start(), "t": T, "gradient": gradient, **change}
    with pytest.raises(error, match=message):
        sa.odeint(**arguments)


OPTIMISED = """
import torch, symplectic_adjoint as sa
T = torch.tensor([0.0, 1.0])
nonsense = [
    lambda: sa.odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0, 1.0])),
    lambda: sa.odeint(lambda t, y: -y, torch.ones(2), T, rtol=-1.0),
    lambda: sa.odeint(lambda t, y: y[:1], torch.ones(2), T),
    lambda: sa.odeint(lambda t, y: -y, torch.tensor([1, 2]), T),
]
for call in nonsense:
    try:
        call()
    except ValueError:
        continue
    raise SystemExit("accepted")
assert False, "this must not run"
print("refused")
"""


def test_defect_18_input_is_checked_under_python_O_too():
    """`python -O` strips assert statements."""
    finished = subprocess.run([sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout.strip()) == (0, "refused"), finished.stderr


@every_gradient
def test_defect_18_max_num_steps_is_of_the_whole_solve(gradient):
    net, y0, t = SmallNet(), start().requires_grad_(), torch.linspace(0.0, 2.0, 11, dtype=torch.float64)
    for options in ({}, {"outputs": "land"}):
        needed = sa.solve(net, y0, t, options=options, gradient=gradient, **LOOSE).stats
        tries = needed.accepted + needed.rejected
        sa.odeint(net, y0, t, options={**options, "max_num_steps": tries}, gradient=gradient, **LOOSE)
        with pytest.raises(sa.TooManySteps):
            sa.odeint(net, y0, t, options={**options, "max_num_steps": tries - 1}, gradient=gradient, **LOOSE)


@exact_gradients
@pytest.mark.parametrize("offset", [1e4, 1e8, 1e12])
def test_defect_19_exactness_does_not_suffer_from_an_offset_of_time(offset, gradient):
    """Steps are stored as they were used; rebuilt from differences of times, 1e8 cost 1.5e-9 and 1e12 6.4e-5."""
    net, y0 = SmallNet(), start().requires_grad_()
    t = offset + vector(0.0, 0.5, 1.0)

    def func(t, y):  # autonomous, so that rounded times make no difference by themselves
        return net(torch.zeros_like(t), y)

    keywords = {"params": tuple(net.parameters()), **LOOSE}
    solution = sa.solve(func, y0, t, gradient=gradient, **keywords)
    backprop = sa.solve(func, y0, t, gradient="backprop", **keywords)
    assert torch.equal(solution.grid.h, backprop.grid.h)
    agree(gradients(net, solution.ys, y0), gradients(net, backprop.ys, y0))
    assert torch.equal(solution.ys, backprop.ys)
