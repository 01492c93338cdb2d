"""gradient="continuous" with implicit methods: its second solve solves the stages of (y, lam) too."""

import copy

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, Continuous, StageNotSolved, UnsupportedCombination, solve
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from tests.fields import Counted, SmallNet, weighted_loss
from tests.oracle import leaves, relative_error
from tests.stiff_fields import StiffLinear, VanDerPol

T = torch.tensor([0.0, 0.02, 0.05, 0.05, 0.1], dtype=torch.float64)
ADAPTIVE = [name for name, tableau in IMPLICIT_METHODS.items() if tableau.adaptive]
FIXED = [name for name, tableau in IMPLICIT_METHODS.items() if not (tableau.adaptive or tableau.coupled)]
TOLERANCE = {"sdirk2": 1e-5, "trbdf2": 1e-6, "kvaerno3": 1e-7}
"""What a method of low order meets in a hundred steps; 1e-9 for the others."""
AMPLIFIED = 1e3
"""Going backwards over 0.1, an error of y grows by up to exp(50 0.1) = 148; what a solve adds is a few tolerances."""


class Relaxation(nn.Module):
    """A fast component of rate -50 that follows a slow one; 50 for direction=-1, so that it is stiff backwards too."""

    def __init__(self, direction=1.0):
        super().__init__()
        self.direction = direction
        self.rate = nn.Parameter(torch.tensor(50.0, dtype=torch.float64))
        self.weights = nn.Parameter(torch.tensor([0.7, -0.4, 1.1], dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, t, y):
        a, b, c = self.weights
        fast, slow = y.unbind(-1)
        return self.direction * torch.stack(
            [-self.rate * (fast - torch.cos(slow)) + a * fast * slow, b * slow + c * torch.sin(3.0 * t) * fast], -1
        )


class Fast(Relaxation):
    def forward(self, t, y):
        fast, slow = y.unbind(-1)
        return self.direction * torch.stack([-self.rate * (fast - torch.cos(slow)), 0.0 * slow], -1)


class Slow(Relaxation):
    def forward(self, t, y):
        a, b, c = self.weights
        fast, slow = y.unbind(-1)
        return self.direction * torch.stack([a * fast * slow, b * slow + c * torch.sin(3.0 * t) * fast], -1)


class InTwoTensors(Relaxation):
    def forward(self, t, state):
        return tuple(super().forward(t, torch.stack(state, -1)).unbind(-1))


def start(batch=3):
    return torch.linspace(0.2, 1.4, 2 * batch, dtype=torch.float64).reshape(batch, 2)


def func_for(method, direction=1.0):
    return (Slow(direction), Fast(direction)) if METHODS[method].additive else Relaxation(direction)


def parameters(func):
    return [p for part in (func if isinstance(func, tuple) else (func,)) for p in part.parameters()]


def gradients_of(func, y0=None, t=T, *, last=-1, **keywords):
    """Return the solution, and the gradients of y0, t and the parameters by their place."""
    y0 = start() if y0 is None else y0
    y0 = tuple(x.clone().requires_grad_() for x in leaves(y0)) if isinstance(y0, tuple) else y0.clone().requires_grad_()
    t = t.clone().requires_grad_()
    solution = solve(func, y0, t, **keywords)
    loss = sum(weighted_loss(x) for x in leaves(solution.ys))
    return solution, torch.autograd.grad(loss, [*leaves(y0), t, *parameters(func)], allow_unused=True)


def assert_near(got, expected, bound):
    assert [x is None for x in got] == [x is None for x in expected]
    errors = [relative_error(g, e) for g, e in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors


def reference_of(func, y0=None, t=T, **keywords):
    whole = func
    if isinstance(func, tuple):
        whole = nn.Module()
        whole.parts = nn.ModuleList(func)
        whole.forward = lambda t, y: func[0](t, y) + func[1](t, y)
    given = {"method": "dop853", "rtol": 1e-12, "atol": 1e-12, **keywords}
    y0 = start() if y0 is None else y0
    y0 = tuple(x.clone().requires_grad_() for x in leaves(y0)) if isinstance(y0, tuple) else y0.clone().requires_grad_()
    t = t.clone().requires_grad_()
    ys = solve(whole, y0, t, **given).ys
    loss = sum(weighted_loss(x) for x in leaves(ys))
    return torch.autograd.grad(loss, [*leaves(y0), t, *parameters(func)], allow_unused=True)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_method_is_as_accurate_as_its_tolerance(method, direction):
    func, tolerance = func_for(method, direction), TOLERANCE.get(method, 1e-9)
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance}
    expected = reference_of(func, t=direction * T)
    solution, got = gradients_of(func, t=direction * T, gradient="continuous", **keywords)
    assert_near(got, expected, AMPLIFIED * tolerance)
    _, exact = gradients_of(func, t=direction * T, gradient="symplectic", **keywords)
    # Its dL/dt is the slope of dense output, of one order less.
    assert_near(got, exact, 10.0 * AMPLIFIED * tolerance)
    stats = solution.stats
    assert stats.accepted_backward > 0 and stats.vjps_backward > 0
    assert stats.stages_backward.iterations > 0 and stats.stages_backward.jacobians > 0
    assert stats.stages_backward.linear == "batched" and stats.stages_backward.residual < 1e-13


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("method", FIXED)
def test_the_error_of_a_fixed_step_falls_with_its_order(method, direction):
    func, order = func_for(method, direction), METHODS[method].order
    expected = reference_of(func, t=direction * T)
    errors = []
    for step in (1e-3, 5e-4):
        options = {"step_size": step}
        _, got = gradients_of(func, t=direction * T, method=method, options=options, gradient="continuous")
        known = [(g, e) for g, e in zip(got, expected, strict=True) if e is not None]
        errors.append(max(relative_error(g, e) for g, e in known))
    assert errors[1] < 0.1 and errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.3)


@pytest.mark.parametrize("method", [*ADAPTIVE, *FIXED])
def test_the_grid_may_be_t_itself(method):
    t = torch.linspace(0.0, 0.05, 26, dtype=torch.float64)
    options = {} if method in FIXED else {"grid_points": t}
    func = func_for(method)
    _, got = gradients_of(func, t=t, method=method, options=options, gradient="continuous")
    assert_near(got, reference_of(func, t=t), 0.2)


@pytest.mark.parametrize("linear", ["dense", "batched", "gmres"])
@pytest.mark.parametrize("method", ["kvaerno5", "kencarp4", "trbdf2"])
def test_every_linear_solver(method, linear):
    func, tolerance = func_for(method), TOLERANCE.get(method, 1e-9)
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance, "options": {"linear": linear}}
    solution, got = gradients_of(func, gradient="continuous", **keywords)
    assert_near(got, reference_of(func), AMPLIFIED * tolerance)
    work = solution.stats.stages_backward
    assert work.linear == linear and (work.jacobians == 0) == (linear == "gmres") and work.products > 0


def test_no_jacobian_holds_a_parameter():
    """A Newton matrix with a row and a column for each parameter would take 50 MiB."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 512), nn.Tanh(), nn.Linear(512, 2)).double()

        def forward(self, t, y):
            return self.net(y) - 50.0 * y

    peak = sa.measure_memory(
        Wide(), start(), T, gradient="continuous", method="kvaerno3", rtol=1e-4, atol=1e-4
    ).peak_tensor_bytes
    theta = 8 * (4 * 512 + 512 + 2)
    assert peak < 12 * theta


@pytest.mark.parametrize("method", ["kvaerno5", "kvaerno3"])
def test_a_state_of_two_tensors(method):
    y0 = tuple(start().unbind(-1))
    tolerance = TOLERANCE.get(method, 1e-9)
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance}
    _, got = gradients_of(InTwoTensors(), y0, gradient="continuous", **keywords)
    assert_near(got, reference_of(InTwoTensors(), y0), AMPLIFIED * tolerance)


@pytest.mark.parametrize("method", ["kvaerno5", "kencarp4"])
def test_a_jump_of_func(method):
    class Switched(Slow):
        def forward(self, t, y):
            return super().forward(t, y) + (3.0 if t >= 0.03 else -1.0)

    class WholeSwitched(Relaxation):
        def forward(self, t, y):
            return super().forward(t, y) + (3.0 if t >= 0.03 else -1.0)

    func = (Switched(), Fast()) if METHODS[method].additive else WholeSwitched()
    options = {"jump_t": [0.03]}
    keywords = {"method": method, "rtol": 1e-9, "atol": 1e-9, "options": options}
    _, got = gradients_of(func, gradient="continuous", **keywords)
    assert_near(got, reference_of(func, options=options), AMPLIFIED * 1e-9)


def test_an_event():
    func = Relaxation()

    def found(gradient, method, tolerance):
        y0 = torch.tensor([[1.4, 0.2]], dtype=torch.float64, requires_grad=True)
        event_t, ys = sa.odeint(
            func, y0, T[[0, -1]], event_fn=lambda t, y: y[0, 0] - 1.1, gradient=gradient, method=method,
            rtol=tolerance, atol=tolerance,
        )  # fmt: skip
        inputs = [y0, func.rate, func.weights]
        return torch.autograd.grad(3.0 * event_t + weighted_loss(ys), inputs)

    assert_near(found("continuous", "kvaerno5", 1e-9), found("symplectic", "dop853", 1e-12), 1e-6)


@pytest.mark.parametrize("norm", ["seminorm", "mixed", lambda y: y.abs().max()], ids=["seminorm", "mixed", "own"])
@pytest.mark.parametrize("method", ["kvaerno5", "trbdf2"])
def test_the_norms_of_the_second_solve(method, norm):
    tolerance = TOLERANCE.get(method, 1e-9)
    gradient = Continuous(rtol=tolerance, atol=tolerance, options={"norm": norm})
    _, got = gradients_of(Relaxation(), gradient=gradient, method=method, rtol=tolerance, atol=tolerance)
    assert_near(got, reference_of(Relaxation()), AMPLIFIED * tolerance)


def test_mixed_resolves_a_term_whose_coefficient_is_zero():
    class Forced(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, t, y):
            return self.c * torch.sin(20.0 * t) + 0.0 * y

    exact = torch.tensor((1.0 - torch.cos(torch.tensor(20.0).double()).item()) / 20.0, dtype=torch.float64)
    errors = {}
    for norm in ("seminorm", "mixed"):
        func, t = Forced(), torch.tensor([0.0, 1.0], dtype=torch.float64)
        gradient = Continuous(options={"norm": norm})
        keywords = {"method": "kvaerno5", "rtol": 1e-8, "atol": 1e-8}
        ys = solve(func, torch.ones(1, dtype=torch.float64), t, gradient=gradient, **keywords).ys
        errors[norm] = (torch.autograd.grad(ys[-1].sum(), func.c)[0] - exact).abs().item()
    assert errors["mixed"] < 1e-7 < errors["seminorm"]


@pytest.mark.parametrize(
    ("method", "second"),
    [("dopri5", "kvaerno5"), ("kvaerno5", "dopri5"), ("kencarp4", "kvaerno5"), ("ars222", "dopri5")],
)
def test_the_second_solve_may_have_another_method(method, second):
    func = func_for(method)
    options = {"step_size": 2e-5} if method in FIXED else {}  # of order 2
    gradient = Continuous(method=second, rtol=1e-9, atol=1e-9)
    solution, got = gradients_of(func, gradient=gradient, method=method, rtol=1e-9, atol=1e-9, options=options)
    assert_near(got, reference_of(func), 1e-5 if method in FIXED else 1e-6)
    if METHODS[second].implicit:
        assert solution.stats.stages_backward.iterations > 0


@pytest.mark.parametrize("method", ["gl4", "radauIIA3"])
def test_the_first_solve_may_have_coupled_stages(method):
    func, gradient = Relaxation(), Continuous(method="kvaerno5", rtol=1e-9, atol=1e-9)
    _, got = gradients_of(func, gradient=gradient, method=method, options={"step_size": 1e-3})
    assert_near(got, reference_of(func), 1e-5)


def test_the_second_solve_may_have_another_linear_solver():
    gradient = Continuous(options={"linear": "gmres"})
    keywords = {"method": "kvaerno5", "rtol": 1e-9, "atol": 1e-9, "options": {"linear": "dense"}}
    solution, got = gradients_of(Relaxation(), gradient=gradient, **keywords)
    assert_near(got, reference_of(Relaxation()), 1e-6)
    assert (solution.stats.stages.linear, solution.stats.stages_backward.linear) == ("dense", "gmres")


@pytest.mark.parametrize("method", ["kvaerno3", "trbdf2", "implicit_euler", "crank_nicolson"])
def test_float32(method):
    func, options = Relaxation(), {} if METHODS[method].adaptive else {"step_size": 1e-3}
    keywords = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": options, "gradient": "continuous"}
    _, wide = gradients_of(func, **keywords)
    _, got = gradients_of(copy.deepcopy(func).float(), start().float(), **keywords)
    # The same steps, whose stages are solved to a few eps = 1e-7, amplified 148 times.
    assert_near([None if x is None else x.double() for x in got], wide, 2e-3)


def test_a_second_backward_pass_gives_the_same():
    func, y0 = Relaxation(), start().requires_grad_()
    ys = solve(func, y0, T, method="kvaerno3", rtol=1e-4, atol=1e-4, gradient="continuous").ys
    first = torch.autograd.grad(ys.sum(), [y0, func.rate], retain_graph=True)
    again = torch.autograd.grad(ys.sum(), [y0, func.rate])
    assert_near(again, first, 1e-9)


@pytest.mark.parametrize("method", ["kvaerno5", "implicit_euler", "kencarp4"])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_func_that_changed_is_refused(method, factor):
    class Scaled(nn.Module):
        def __init__(self, func, factor):
            super().__init__()
            self.func, self.factor = func, factor

        def forward(self, t, y):
            return self.factor[0] * self.func(t, y)

    factors = [1.0]
    whole = func_for(method)
    func = tuple(Scaled(x, factors) for x in whole) if isinstance(whole, tuple) else Scaled(whole, factors)
    options = {} if METHODS[method].adaptive else {"step_size": 1e-3}
    y0 = start().requires_grad_()
    keywords = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": options}
    ys = solve(func, y0, T, gradient="continuous", **keywords).ys
    factors[0] = factor
    if factor == 1.0:
        torch.autograd.grad(ys.sum(), y0)
        return
    with pytest.raises(sa.FunctionChanged):
        torch.autograd.grad(ys.sum(), y0)


def test_stages_that_cannot_be_solved_end_the_backward_pass_by_name():
    """Y = y + Y^2, which a step of -1 solves from y = 0.6 on, has no real solution: a fixed step is not shortened."""
    y0, t = torch.ones(1, dtype=torch.float64, requires_grad=True), torch.tensor([0.0, 1.0], dtype=torch.float64)
    keywords = {"method": "implicit_euler", "options": {"step_size": 1.0}, "gradient": "continuous"}
    ys = solve(lambda t, y: -y * y, y0, t, **keywords).ys
    with pytest.raises(StageNotSolved, match=r"the stage at t = 0 were not solved"):
        torch.autograd.grad(ys.sum(), y0)


@pytest.mark.parametrize(
    ("func", "y0", "method"),
    [
        (VanDerPol(100.0), VanDerPol.START, "kvaerno5"),
        ((SmallNet(), StiffLinear()), torch.ones(2, 3, dtype=torch.float64), "kencarp4"),
        (Relaxation(), start(), "implicit_euler"),
    ],
    ids=["kvaerno5", "kencarp4", "implicit_euler"],
)
def test_a_second_solve_that_loses_y_is_an_error_unless_the_check_is_off(func, y0, method):
    """Backwards over 1, an error of y grows by exp(50) or more, while the steps are long."""
    t, options = torch.tensor([0.0, 1.0], dtype=torch.float64), {} if METHODS[method].adaptive else {"step_size": 0.1}
    keywords = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": options}
    y0 = y0.clone().requires_grad_()
    ys = solve(func, y0, t, gradient="continuous", **keywords).ys
    with pytest.raises(sa.ReversalError, match=r"second solve of gradient='continuous' missed an output by .* of the"):
        torch.autograd.grad(ys.sum(), y0)
    ys = solve(func, y0, t, gradient=Continuous(check=False), **keywords).ys
    torch.autograd.grad(ys.sum(), y0)


def test_an_equilibrium_at_zero_is_reversed():
    y0 = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    ys = solve(lambda t, y: -50.0 * y, y0, T[[0, -1]], method="kvaerno3", gradient="continuous").ys
    (found,) = torch.autograd.grad(ys[-1].sum(), y0)
    torch.testing.assert_close(found, torch.full_like(y0, torch.exp(torch.tensor(-5.0)).item()), rtol=1e-4, atol=0)


def test_the_second_solve_refuses_autocast():
    func, gradient = Counted(lambda t, y: -y), Continuous(method="kvaerno5")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UnsupportedCombination, match="autocast"):
        solve(func, start().float().requires_grad_(), T, gradient=gradient)
    assert func.calls == 0


@pytest.mark.parametrize(
    ("method", "gradient", "y0", "message"),
    [
        ("dopri5", Continuous(method="kencarp4"), start(), r"Continuous\(method='kencarp4'\) takes func as a pair"),
        ("dopri5", Continuous(method="kvaerno5"), start() + 0j, "a state of torch.complex128"),
        ("dopri5", Continuous(method="kvaerno5"), start().bfloat16(), "a state of torch.bfloat16"),
        (
            "dopri5",
            Continuous(method="kvaerno5", options={"linear": "batched"}),
            start()[0],
            "'linear' is 'batched', but y0 has no batch",
        ),
        ("kvaerno5", Continuous(method="dopri5", options={"linear": "dense"}), start(), "belongs to implicit methods"),
        ("kvaerno5", "continuous", start() + 0j, "a state of torch.complex128"),
        ("gl4", "continuous", start(), "does not work with gl4, whose stages are coupled"),
        ("dopri5", Continuous(method="radauIIA3"), start(), "does not work with radauIIA3, whose stages are coupled"),
    ],
)
def test_what_the_second_solve_refuses_is_refused_before_func_is_called(method, gradient, y0, message):
    func = Counted(lambda t, y: -y)
    options = {} if METHODS[method].adaptive else {"step_size": 0.1}
    with pytest.raises(UnsupportedCombination, match=message):
        solve(func, y0.requires_grad_(), T, method=method, gradient=gradient, rtol=1e-2, atol=1e-2, options=options)
    assert func.calls == 0
