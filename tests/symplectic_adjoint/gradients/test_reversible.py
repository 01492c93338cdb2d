"""Steps that can be undone: mali and reversible equal autograd through their own steps, in memory without N."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, Mali, Reversible, solve
from symplectic_adjoint.methods.leapfrog import leapfrog
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.oracle import relative_error, replay

# The same operations in another order, from states that were found by undoing some tens of steps: each adds its
# rounding, which the flow backwards and 1 / coupling or 1 / (2 eta - 1) enlarge, here by less than a hundred.
ROUNDING = 1e-12

TIMES = [0.0, 0.25, 0.3, 0.31, 0.8, 1.0]
GRIDS = {"adaptive": {}, "step-size": {"step_size": 0.15}, "grid-points": {"grid_points": [0.0, 0.1, 0.55, 1.0]}}
WRAPPED = [
    (method, grid, Reversible(), ("coupled", 0.999))
    for method in EXPLICIT_METHODS
    for grid in GRIDS
    if METHODS[method].adaptive or grid != "adaptive"
]
OTHERS = [
    ("dopri5", "adaptive", Reversible(coupling=0.7), ("coupled", 0.7)),
    *((None, grid, Mali(), ("leapfrog", 1.0)) for grid in GRIDS),
    *((None, grid, Mali(eta=0.8), ("leapfrog", 0.8)) for grid in GRIDS if grid != "adaptive"),
]


def tableau_of(method, gradient):
    return leapfrog(gradient.eta) if isinstance(gradient, Mali) else METHODS[method]


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize(("method", "grid", "gradient", "pair"), WRAPPED + OTHERS)
def test_the_gradient_is_autograd_through_its_own_steps(method, grid, gradient, pair, direction):
    options = {
        name: [direction * p for p in value] if name == "grid_points" else value for name, value in GRIDS[grid].items()
    }
    func, y0 = SmallNet(), start().requires_grad_()
    t = (direction * torch.tensor(TIMES, dtype=torch.float64)).requires_grad_()
    solution = solve(func, y0, t, rtol=1e-4, atol=1e-4, method=method, options=options, gradient=gradient)
    ys = replay(func, tableau_of(method, gradient), solution.grid, y0, t, pair)
    assert relative_error(solution.ys, ys) < ROUNDING
    inputs = [y0, t, *func.parameters()]
    got, expected = (torch.autograd.grad(weighted_loss(x), inputs, allow_unused=True) for x in (solution.ys, ys))
    names = ["y0", "t", *(name for name, _ in func.named_parameters())]
    errors = {n: relative_error(g, e) for n, g, e in zip(names, got, expected, strict=True)}
    assert max(errors.values()) < ROUNDING, errors
    assert dict(zip(names, got, strict=True))["unused"] is None


@pytest.mark.parametrize("gradient", ["mali", "reversible"])
@pytest.mark.parametrize("no_grad", [False, True])
def test_ys_are_those_of_its_own_steps_with_and_without_a_gradient(gradient, no_grad):
    func, t = SmallNet(), torch.tensor(TIMES, dtype=torch.float64)
    with torch.set_grad_enabled(not no_grad):
        ys = solve(func, start(), t, gradient=gradient, rtol=1e-4, atol=1e-4).ys
    assert torch.equal(ys, solve(func, start().requires_grad_(), t, gradient=gradient, rtol=1e-4, atol=1e-4).ys)
    plain = solve(func, start(), t, rtol=1e-4, atol=1e-4).ys
    assert not torch.equal(ys, plain)
    assert relative_error(ys, plain) < 1e-2


def test_reversible_keeps_the_methods_order():
    func, t = SmallNet(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    exact = solve(func, start(), t, method="dopri8", rtol=1e-12, atol=1e-12).ys[-1]
    for method, order in (("heun2", 2), ("rk4", 4)):
        errors = [
            relative_error(
                solve(func, start(), t, method=method, options={"step_size": h}, gradient="reversible").ys[-1], exact
            )
            for h in (0.1, 0.05, 0.025)
        ]
        # Halving a step of order p divides the error by 2^p; a quarter off for the terms of higher order.
        assert all(a / b > 0.75 * 2**order for a, b in pairwise(errors)), (method, errors)


def test_mali_has_order_two_without_damping_and_order_one_with_it():
    func, t = SmallNet(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    exact = solve(func, start(), t, method="dopri8", rtol=1e-12, atol=1e-12).ys[-1]
    for gradient, order in ((Mali(), 2), (Mali(eta=0.8), 1)):
        errors = [
            relative_error(solve(func, start(), t, options={"step_size": h}, gradient=gradient).ys[-1], exact)
            for h in (0.05, 0.025, 0.0125)
        ]
        assert all(a / b > 0.75 * 2**order for a, b in pairwise(errors)), (gradient, errors)


@pytest.mark.parametrize(
    ("gradient", "forward", "backward"), [("mali", (1, 1), (1, 1)), ("reversible", (8, -4), (16, -8))]
)
@pytest.mark.parametrize("steps", [1, 10])
def test_f_calls(gradient, forward, backward, steps):
    """v needs one at the start; the second half of the last coupled step, which leads nowhere, none."""
    func, y0 = Counted(SmallNet()), start().requires_grad_()
    method = None if gradient == "mali" else "rk4"
    t = torch.linspace(0.0, 1.0, 2, dtype=torch.float64)
    solution = solve(func, y0, t, method=method, options={"step_size": 1.0 / steps}, gradient=gradient)
    assert func.calls == solution.stats.f_calls_forward == forward[0] * steps + forward[1]
    func.calls = 0
    solution.ys.sum().backward()
    assert func.calls == solution.stats.f_calls_backward == backward[0] * steps + backward[1]
    assert solution.stats.vjps_backward == (steps + 1 if gradient == "mali" else 8 * steps - 4)


@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_memory_does_not_grow_with_the_steps(gradient):
    func, y0 = SmallNet(), torch.randn(512, 3, dtype=torch.float64).requires_grad_()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    method = None if gradient == "mali" else "rk4"
    peaks = [
        sa.measure_memory(func, y0, t, method=method, options={"step_size": 1.0 / n}, gradient=gradient)
        for n in (4, 64)
    ]
    state = y0.numel() * 8
    assert abs(peaks[1].peak_tensor_bytes - peaks[0].peak_tensor_bytes) < 0.1 * state  # scalars of the time grid
    assert peaks[1].kept_tensor_bytes <= 4.1 * state  # two outputs, and the pair at the end


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"gradient": "mali", "method": "dopri5"}, "only works with its own method 'alf', got method='dopri5'"),
        ({"method": "alf"}, 'comes with gradient="mali"'),
        ({"gradient": "mali", "options": {"jump_t": [0.5]}}, "'jump_t' does not work with gradient='mali'"),
        ({"gradient": "mali", "options": {"outputs": "interpolate"}}, "no dense output"),
        ({"gradient": "reversible", "options": {"step_size": 0.1, "interp": "cubic"}}, "no dense output"),
        ({"gradient": "mali", "compile": True}, "compile=True does not work with gradient="),
        ({"gradient": "reversible", "accumulate": "float64"}, "accumulate='float64' belongs to"),
    ],
)
def test_unsupported_combinations_are_refused_before_func_is_called(keywords, message):
    func = Counted(SmallNet())
    with pytest.raises(ValueError, match=message):
        solve(func, start(), torch.tensor([0.0, 1.0], dtype=torch.float64), **keywords)
    assert func.calls == 0


@pytest.mark.parametrize(
    ("gradient", "off"), [(Mali(eta=0.7), 0.4), (Reversible(coupling=0.5), 0.5)], ids=["mali", "reversible"]
)
def test_a_solve_that_cannot_be_reversed_is_an_error_and_leaves_no_gradient(gradient, off):
    """Each step enlarges rounding by 1 / off: 2.2e-16 / off^N passes the square root of it at 20 to 26 steps."""
    func, y0, t = SmallNet(), start().requires_grad_(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    for steps, fails in ((10, False), (60, True)):
        assert (2.2e-16 / off**steps > 1.5e-8) == fails
        ys = solve(func, y0, t, options={"step_size": 1.0 / steps}, gradient=gradient).ys
        if fails:
            with pytest.raises(sa.ReversalError, match=r"reversing the 60 steps .* use larger steps"):
                ys.sum().backward()
            assert y0.grad is None
        else:
            torch.autograd.grad(ys.sum(), y0)


@pytest.mark.parametrize("make", [lambda: Mali(eta=0.5), lambda: Mali(eta=2.0), lambda: Reversible(coupling=1.0)])
def test_parameters_that_make_steps_irreversible_are_refused(make):
    with pytest.raises(ValueError, match=r"must be a number"):
        make()


def test_dense_solutions_are_refused():
    with pytest.raises(ValueError, match="no dense output"):
        sa.odeint_dense(SmallNet(), start(), 0.0, 1.0, gradient="reversible")


def test_reversible_steps_over_a_jump_of_func_on_either_side_of_it():
    rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def func(t, y):
        return rate * y * (1.0 if t < 0.5 else -2.0)

    y0 = start().requires_grad_()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"jump_t": [0.5]}
    keywords = {"options": options, "rtol": 1e-9, "atol": 1e-9, "params": (rate,)}
    ys = solve(func, y0, t, gradient="reversible", **keywords).ys
    bars = torch.autograd.grad(ys[-1].sum(), (y0, rate))
    factor = torch.exp(rate.detach() * -0.5)  # 0.5 forwards, 0.5 at twice the rate back
    # Closed form; 1e-9 is the tolerance a step, and there are some tens.
    assert torch.allclose(ys[-1], y0 * factor, rtol=1e-7)
    assert torch.allclose(bars[0], torch.full_like(y0, factor.item()), rtol=1e-7)
    assert torch.allclose(bars[1], (-0.5 * y0 * factor).sum(), rtol=1e-6)


class Rotating(nn.Module):
    """A complex field, stirred by time."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.3 + 1.1j, -0.2 + 0.4j], dtype=torch.complex128))

    def forward(self, t, y):
        return self.rate * y * torch.cos(t)


class Noisy(nn.Module):
    """Dropout in training: one mask a solve."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, t, y):
        return nn.functional.dropout(self.net(t, y), 0.4)


def a_tensor():
    return SmallNet(), start()


def a_structure():
    net = SmallNet()
    return (
        lambda t, y: {"x": net(t, y["x"]), "v": -y["v"]},
        {"x": start(), "v": start(batch=2)},
        tuple(net.parameters()),
    )


def a_complex_state():
    return Rotating(), torch.tensor([1.0 + 0.5j, -0.3 + 2.0j], dtype=torch.complex128)


def a_closure():
    weight = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return lambda t, y: torch.tanh(y @ weight) * torch.cos(t), start(), (weight,)


def noise():
    return Noisy(), start()


def no_samples():
    return SmallNet(), start(batch=0)


@pytest.mark.parametrize("make", [a_tensor, a_structure, a_complex_state, a_closure, noise, no_samples])
@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.4, 0.9), (0.5,)])
@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_reversing_the_steps_gives_the_gradient_of_autograd_through_them(gradient, times, make):
    func, y0, *given = make()
    params = given[0] if given else tuple(func.parameters())
    parts = y0.values() if isinstance(y0, dict) else [y0]
    for part in parts:
        part.requires_grad_()
    t = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    ys = sa.odeint(func, y0, t, options={"step_size": 0.11}, gradient=gradient, params=params)
    loss = sum(weighted_loss(y.abs()) for y in (ys.values() if isinstance(ys, dict) else [ys]))
    inputs = [*parts, t, *params]
    got = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    expected = torch.autograd.grad(loss, inputs, allow_unused=True, create_graph=True)
    for a, b in zip(got, expected, strict=True):
        assert relative_error(a, b) < ROUNDING


@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_an_events_time_and_state_are_differentiated(gradient):
    rate = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))
    y0 = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.2, 9.0], dtype=torch.float64, requires_grad=True)
    tolerance = 1e-9 if gradient == "reversible" else 1e-7
    event_t, ys = sa.odeint(
        lambda t, y: rate * y, y0, t, event_fn=lambda t, y: y[0] - 2.0, gradient=gradient, params=(rate,),
        rtol=tolerance, atol=tolerance,
    )  # fmt: skip
    # t = 0.2 + log(2 / y0) / rate, to the tolerance of the steps: there are some hundreds of mali's.
    close = {"rel": 1e-4 if gradient == "mali" else 1e-7}
    assert event_t.item() == pytest.approx(0.2 + torch.tensor(2.0).log().item() / 0.9, **close)
    of_y0, of_t, of_rate = torch.autograd.grad(event_t, (y0, t, rate), retain_graph=True)
    assert of_y0.item() == pytest.approx(-1.0 / 0.9, **close)
    assert of_t[0].item() == pytest.approx(1.0, **close)
    assert of_rate.item() == pytest.approx(-torch.tensor(2.0).log().item() / 0.81, **close)
    assert abs(torch.autograd.grad(ys[-1].sum(), y0)[0].item()) < 1e-6  # y is 2 there, whatever y0 is


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, of vmap
@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_forward_mode_and_vmap_differentiate_the_own_steps(gradient):
    func, t = SmallNet().requires_grad_(False), torch.tensor([0.0, 0.5], dtype=torch.float64)

    def end(y):
        return sa.odeint(func, y, t, options={"step_size": 0.1}, gradient=gradient)[-1]

    y0, v = start().requires_grad_(), start(seed=3)
    (back,) = torch.autograd.grad(end(y0), y0, v)
    _, there = torch.func.jvp(end, (y0.detach(),), (v,))
    assert (back * v).sum().item() == pytest.approx((there * v).sum().item(), rel=1e-12)  # v J v, either way
    one_by_one = torch.func.vmap(lambda y: end(y[None])[0])(y0.detach())
    assert relative_error(one_by_one, end(y0)) < 1e-14  # matrix products in another order


@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_a_second_backward_pass_gives_the_same_gradient(gradient):
    func, y0 = SmallNet(), start().requires_grad_()
    ys = sa.odeint(func, y0, torch.tensor(TIMES, dtype=torch.float64), options={"step_size": 0.1}, gradient=gradient)
    inputs = [y0, *func.inner.parameters()]
    first = torch.autograd.grad(weighted_loss(ys), inputs, retain_graph=True)
    second = torch.autograd.grad(weighted_loss(ys), inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
