"""The exact gradients of implicit methods equal the implicit function theorem on the recorded grid."""

import copy
from fractions import Fraction

import pytest
import torch
from mpmath import mp, mpf

from symplectic_adjoint import METHODS, UnsupportedCombination, solve
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, taking_turns
from tests.oracle import leaves, relative_error, replay
from tests.stiff_fields import CoupledState, Robertson, StiffLinear, VanDerPol

# Each side solves its stages to a few eps of the state, and k = z / (h g) and the sums amplify that a hundredfold.
ROUNDING = 1e-11

T = torch.tensor([0.0, 0.25, 0.3, 0.31, 0.8, 1.0], dtype=torch.float64)
ADDITIVE = [name for name, tableau in IMPLICIT_METHODS.items() if tableau.additive]
SINGLE = [name for name in IMPLICIT_METHODS if name not in ADDITIVE]
GRIDS = {"adaptive": {}, "step-size": {"step_size": 0.22}}
CASES = [(m, g) for m in IMPLICIT_METHODS for g in GRIDS if METHODS[m].adaptive or g != "adaptive"]


def func_for(method, direction=1.0):
    return (SmallNet(), StiffLinear(direction)) if METHODS[method].additive else SmallNet()


def parameters(func):
    return [p for part in (func if isinstance(func, tuple) else (func,)) for p in part.parameters()]


def loss_of(ys):
    return sum(weighted_loss(leaf) for leaf in leaves(ys))


def assert_exact(func, y0, t, *, method, bound=ROUNDING, times=True, **keywords):
    """Solve, compare values and gradients with the oracle's on the recorded grid, and return the solution."""
    y0 = _requiring(y0)
    t = t.clone().requires_grad_(times)
    solution = solve(func, y0, t, method=method, **keywords)
    ys = replay(func, METHODS[method], solution.grid, y0, t)
    for got, expected in zip(leaves(solution.ys), leaves(ys), strict=True):
        assert relative_error(got, expected) < bound
    inputs = [*leaves(y0), *([t] if times else []), *parameters(func)]
    got = torch.autograd.grad(loss_of(solution.ys), inputs, allow_unused=True)
    expected = torch.autograd.grad(loss_of(ys), inputs, allow_unused=True)
    errors = [relative_error(g, e) for g, e in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors
    assert all(e is None or e.any() for e in expected)
    return solution


def _requiring(state):
    if isinstance(state, torch.Tensor):
        return state.clone().requires_grad_()
    if isinstance(state, dict):
        return {name: _requiring(part) for name, part in state.items()}
    return type(state)(map(_requiring, state))


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize(("method", "grid"), CASES)
def test_an_exact_gradient_is_that_of_the_solved_stages(method, grid, gradient):
    direction = (-1.0) ** (CASES.index((method, grid)) + EXACT.index(gradient))
    solution = assert_exact(
        func_for(method, direction),
        start(batch=2),
        direction * T,
        method=method,
        rtol=1e-3,
        atol=1e-3,
        options=dict(GRIDS[grid]),
        gradient=gradient,
    )
    inside = [n for n in solution.grid.output_step.tolist() if n >= 0]
    assert grid == "step-size" or len(inside) == len(T) - 1


@pytest.mark.parametrize(("gradient", "method", "kind"), taking_turns([("trbdf2", tuple), ("kvaerno3", dict)], EXACT))
def test_structured_states(method, kind, gradient):
    parts = (start(batch=2), torch.tensor([0.1, -0.2], dtype=torch.float64))
    y0 = parts if kind is tuple else dict(zip("ab", parts, strict=True))
    solution = assert_exact(CoupledState(), y0, T, method=method, rtol=1e-3, atol=1e-3, gradient=gradient)
    assert isinstance(solution.ys, kind)


def test_a_pair_with_a_structured_state():
    y0 = (start(batch=2), torch.tensor([0.1, -0.2], dtype=torch.float64))

    class Decay(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(30.0, dtype=torch.float64))

        def forward(self, t, state):
            return tuple(-self.rate * part + torch.cos(t) for part in state)

    assert_exact((CoupledState(), Decay()), y0, T, method="kencarp4", rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("gradient", "method"), taking_turns(["kvaerno3", "crank_nicolson", "kencarp4"], EXACT))
def test_jumps_of_func(method, gradient):
    class Switched(SmallNet):
        def forward(self, t, y):
            return super().forward(t, y) + (3.0 if t >= 0.5 else -1.0)

    func = (Switched(), StiffLinear()) if METHODS[method].additive else Switched()
    solution = assert_exact(
        func, start(batch=2), T, method=method, rtol=1e-3, atol=1e-3, gradient=gradient, options={"jump_t": [0.5]}
    )
    assert solution.grid.open_end.any() and solution.grid.open_start.any()


@pytest.mark.parametrize(("gradient", "method"), taking_turns(["sdirk2", "kvaerno5", "kencarp4"], EXACT))
def test_repeated_times(method, gradient):
    t = torch.tensor([0.0, 0.0, 0.4, 0.4, 1.0, 1.0], dtype=torch.float64)
    func, y0 = func_for(method), start(batch=2).requires_grad_()
    options = {"rtol": 1e-3, "atol": 1e-3, "method": method}
    ys = solve(func, y0, t, gradient=gradient, **options).ys
    once = solve(func, y0, t[::2], gradient="symplectic", **options).ys
    assert torch.equal(ys[::2], ys[1::2]) and torch.equal(ys[::2], once)
    inputs = [y0, *parameters(func)]
    got = torch.autograd.grad(loss_of(ys[::2]) + loss_of(ys[1::2]), inputs, allow_unused=True)
    expected = torch.autograd.grad(2.0 * loss_of(once), inputs, allow_unused=True)
    assert max(relative_error(g, e) for g, e in zip(got, expected, strict=True)) < ROUNDING


@pytest.mark.parametrize("linear", ["dense", "batched", "gmres"])
@pytest.mark.parametrize(("gradient", "method"), taking_turns(["kvaerno3", "kencarp4"], EXACT))
def test_every_linear_solver(method, gradient, linear):
    solution = assert_exact(
        func_for(method),
        start(batch=2),
        T,
        method=method,
        rtol=1e-3,
        atol=1e-3,
        gradient=gradient,
        options={"linear": linear},
    )
    assert solution.stats.stages.linear == linear


@pytest.mark.parametrize("kind", ["function", "pair", "useless"])
@pytest.mark.parametrize(
    ("gradient", "method"), taking_turns(["trbdf2", "kencarp4"], ["symplectic", "backprop", "aca"])
)
def test_a_preconditioner_changes_no_gradient(method, gradient, kind):
    func = StiffLinear()
    diagonal = func.A.detach().diagonal()

    def approximate(t, y, hg, r):
        return r / (1.0 - hg * diagonal)

    given = {"function": approximate, "pair": (approximate, approximate), "useless": lambda t, y, hg, r: 3.0 * r}[kind]
    assert_exact(
        (SmallNet(), func) if METHODS[method].additive else func,
        start(batch=2),
        T,
        method=method,
        rtol=1e-3,
        atol=1e-3,
        gradient=gradient,
        options={"linear": "gmres", "preconditioner": given},
    )


@pytest.mark.parametrize(("gradient", "method"), taking_turns(SINGLE, EXACT))
def test_float32_is_exact_to_its_own_rounding(method, gradient):
    func, y0 = SmallNet().float(), start(batch=2).float().requires_grad_()
    options = {} if METHODS[method].adaptive else {"step_size": 0.2}
    solution = solve(func, y0, T, method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient)
    got = torch.autograd.grad(weighted_loss(solution.ys), [y0, *func.parameters()], allow_unused=True)
    wide, y0 = copy.deepcopy(func).double(), y0.detach().double().requires_grad_()
    ys = replay(wide, METHODS[method], solution.grid, y0, T)
    expected = torch.autograd.grad(weighted_loss(ys), [y0, *wide.parameters()], allow_unused=True)
    # Stages solved to a few eps = 1e-7, over about ten steps.
    assert max(relative_error(g, e) for g, e in zip(got, expected, strict=True)) < 1e-5


@pytest.mark.parametrize(("gradient", "method"), taking_turns([m for m in SINGLE if METHODS[m].adaptive], EXACT))
def test_van_der_pol(method, gradient):
    # dL/dt of the fast component is its rate, 10 times its value: rounding errors are 10 times larger too.
    t = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    assert_exact(VanDerPol(10.0), VanDerPol.START, t, method=method, rtol=1e-3, atol=1e-3, gradient=gradient)


@pytest.mark.parametrize(("gradient", "method"), taking_turns(["kvaerno3", "trbdf2", "kvaerno5", "sdirk2"], EXACT))
def test_robertson(method, gradient):
    t = torch.tensor([0.0, 40.0], dtype=torch.float64)
    solution = assert_exact(Robertson(), Robertson.START, t, method=method, rtol=1e-4, atol=1e-8, gradient=gradient)
    assert len(solution.grid.t) < 200  # an explicit method needs 1e5


def assert_second_derivatives_exact(t, *, method, **keywords):
    """Compare second derivatives in y0 and a weight with differences of the oracle's first ones."""
    func, y0 = SmallNet(), start(batch=2).requires_grad_()
    solution = solve(func, y0, t, method=method, **keywords)
    inputs = [y0, func.inner.weight]

    def combined(first):
        return first[0].square().sum() + first[1].sin().sum()

    first = torch.autograd.grad(weighted_loss(solution.ys), inputs, create_graph=True)
    second = torch.autograd.grad(combined(first), inputs)
    directions = [torch.randn_like(x) for x in inputs]

    def moved(epsilon):
        """Return the combined first gradients from the oracle, with the inputs moved by epsilon."""
        with torch.no_grad():
            func.inner.weight += epsilon * directions[1]
        y = (y0.detach() + epsilon * directions[0]).requires_grad_()
        ys = replay(func, METHODS[method], solution.grid, y, t)
        found = combined(torch.autograd.grad(weighted_loss(ys), [y, func.inner.weight])).item()
        with torch.no_grad():
            func.inner.weight -= epsilon * directions[1]
        return found

    step = 1e-3  # a central difference of order 4: h^4 and 1e-15 / h balance
    expected = (8.0 * (moved(step) - moved(-step)) - (moved(2 * step) - moved(-2 * step))) / (12.0 * step)
    got = sum((a * v).sum() for a, v in zip(second, directions, strict=True)).item()
    assert got == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("gradient", [name for name in EXACT if name != "backprop"])
@pytest.mark.parametrize("linear", ["auto", "gmres"])
def test_second_derivatives_are_those_of_the_recorded_grid(gradient, linear):
    options = {"linear": linear}
    assert_second_derivatives_exact(T, method="kvaerno3", rtol=1e-2, atol=1e-2, gradient=gradient, options=options)


def test_backprop_refuses_second_derivatives():
    y0 = start(batch=2).requires_grad_()
    ys = solve(SmallNet(), y0, T, method="trbdf2", rtol=1e-2, atol=1e-2, gradient="backprop").ys
    with pytest.raises(UnsupportedCombination, match='need gradient="symplectic"'):
        torch.autograd.grad(weighted_loss(ys), [y0], create_graph=True)


def test_third_derivatives_are_refused():
    y0 = start(batch=2).requires_grad_()
    ys = solve(SmallNet(), y0, T[:2], method="trbdf2", rtol=1e-2, atol=1e-2, gradient="symplectic").ys
    (first,) = torch.autograd.grad(weighted_loss(ys), [y0], create_graph=True)
    with pytest.raises(UnsupportedCombination, match="third derivatives"):
        torch.autograd.grad(first.square().sum(), [y0], create_graph=True)


def test_two_steps_of_kvaerno3_in_fifty_digits():
    """The gradient of y_1^2 + y_2 in y0 and p, by the implicit function theorem on stages solved by mpmath."""
    h, p, y0 = 0.25, 0.7, (0.9, -0.4)
    expected = _gradient_in_fifty_digits(h, p, y0)

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.tensor(p, dtype=torch.float64))

        def forward(self, t, y):
            a, b = y.unbind(-1)
            return torch.stack([-a * b * self.p + b, torch.sin(a) - 8.0 * self.p * b], -1)

    func, y = Small(), torch.tensor(y0, dtype=torch.float64, requires_grad=True)
    ys = solve(func, y, torch.tensor([0.0, 2.0 * h]).double(), method="kvaerno3", options={"step_size": h}).ys
    got = torch.autograd.grad(ys[-1, 0] ** 2 + ys[-1, 1], [y, func.p])
    for found, exact in zip([*got[0].tolist(), got[1].item()], expected, strict=True):
        assert abs(found - exact) < 1e-14


def _gradient_in_fifty_digits(h, p, y0):
    tableau = METHODS["kvaerno3"]
    with mp.workdps(50):
        h, p = mpf(h), mpf(p)
        A, g, b = [_in_mp(row) for row in tableau.A], _in_mp(tableau.diagonal), _in_mp(tableau.b)
        y, S = mp.matrix(y0), mp.matrix([[1, 0, 0], [0, 1, 0]])  # S = d y / d (y0, p)
        for _ in range(2):
            ks, dks = [], []
            for row, gamma in zip(A, g, strict=True):
                known = y + h * sum((a * k for a, k in zip(row, ks, strict=True)), mp.zeros(2, 1))
                dknown = S + h * sum((a * dk for a, dk in zip(row, dks, strict=True)), mp.zeros(2, 3))
                k = mp.zeros(2, 1)
                for _ in range(30):
                    f, J, _ = _small(known + h * gamma * k, p)
                    k = k - mp.lu_solve(mp.eye(2) - h * gamma * J, k - f)
                _, J, df_dp = _small(known + h * gamma * k, p)
                rhs = J * dknown
                rhs[0, 2] += df_dp[0]
                rhs[1, 2] += df_dp[1]
                ks.append(k)
                dks.append(mp.inverse(mp.eye(2) - h * gamma * J) * rhs)
            y = y + h * sum((w * k for w, k in zip(b, ks, strict=True)), mp.zeros(2, 1))
            S = S + h * sum((w * dk for w, dk in zip(b, dks, strict=True)), mp.zeros(2, 3))
        return [float(2 * y[0] * S[0, j] + S[1, j]) for j in range(3)]


def _in_mp(row):
    return [mpf(Fraction(x).numerator) / Fraction(x).denominator for x in row]


def _small(y, p):
    """Return f, df/dy and df/dp."""
    a, b = y
    f = mp.matrix([-a * b * p + b, mp.sin(a) - 8 * p * b])
    return f, mp.matrix([[-b * p, 1 - a * p], [mp.cos(a), -8 * p]]), mp.matrix([-a * b, -8 * b])
