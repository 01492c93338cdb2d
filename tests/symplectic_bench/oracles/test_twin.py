"""Formulas and fifty-digit arithmetic against the modules, mpmath and calculation by hand."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch

from symplectic_adjoint import METHODS, odeint
from symplectic_bench.contenders.registry import CONTENDERS, decline
from symplectic_bench.data.tables import table_file
from symplectic_bench.measure.gradient_error import discrete_error
from symplectic_bench.oracles.fifty_digits import FIFTY, FiftyDigits, Number, array, gradient, plain, variables
from symplectic_bench.oracles.recorded_grid import equal_steps, relative_error, replay
from symplectic_bench.oracles.recorded_grid import gradient as autograd
from symplectic_bench.oracles.twin import DigitsTwin, doubles, error_in_digits
from symplectic_bench.problems import PROBLEMS, in_turn
from tests.symplectic_bench.sample_cells import FIXED, make_cell

SIZES = {
    "flow": {"data": "wine", "width": 4},
    "mlp": {"state": 3, "width": 4, "layers": 2},
    "stack": {"state": 2, "width": 3, "layers": 1},
    "unlisted": {"state": 2, "width": 3},
    "linear": {"dim": 3},
    "spiral": {"width": 4},
    "kdv": {"points": 8},
    "cahn_hilliard": {"points": 8, "end": 0.02},
    "robertson": {"end": 1e-3},
    "hires": {"end": 0.01},
    "stiff_spiral": {"width": 4, "end": 0.02},
    "pharmacokinetics": {"width": 4, "end": 0.01},
    "allen_cahn": {"points": 8},
    "brusselator": {"points": 6},
    "brusselator_2d": {"points": 3, "end": 0.02},
}
"""Small sizes for problems that are large or stiff by default."""

ROUNDING = 1e-14
"""A few dozen rounding errors of float64."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    np.savez(table_file("wine", folder), rows=np.random.default_rng(0).normal(size=(20, 3)))

    def build(name, batch=2, **sizes):
        return PROBLEMS[name].build({**sizes, **SIZES.get(name, {})}, batch, "float64", cache_dir=folder)

    return build


every_problem = pytest.mark.parametrize("name", PROBLEMS)
with_solution = pytest.mark.parametrize("name", [name for name, family in PROBLEMS.items() if family.solution])


@every_problem
@pytest.mark.parametrize("t", [0.0, 0.3])
def test_a_formula_equals_its_field(small, name, t):
    problem = small(name)
    twin = DigitsTwin(problem)
    for i in range(problem.components):
        found, _ = doubles(np.frompyfunc(plain, 1, 1)(twin.component(i, twin.y0).f(FIFTY.mpf(t), twin.y0)))
        expected = problem.component(i, problem.y0).f(t, problem.y0)
        assert found.shape == expected.shape
        assert relative_error([found], [expected]) < ROUNDING


@every_problem
def test_a_formula_equals_its_loss(small, name):
    problem = small(name)
    ys = torch.randn(len(problem.t), *problem.y0.shape, dtype=torch.float64)
    assert float(DigitsTwin(problem).loss(variables(ys)).value) == pytest.approx(problem.loss(ys).item(), rel=ROUNDING)


@every_problem
def test_a_replay_in_fifty_digits_equals_autograd_to_rounding(small, name):
    whole = small(name, end=0.5, **({"outputs": 1} if "outputs" in PROBLEMS[name].sizes else {}))
    problem = replace(whole, moving_t=None)  # times are constants in fifty digits
    grid = equal_steps(problem.t, 3)
    twin = DigitsTwin(problem)
    expected = autograd(problem, in_turn(problem, lambda part: replay(METHODS["rk4"], part, grid)))
    found = twin.gradient(twin.loss(in_turn(twin, lambda part: replay(METHODS["rk4"], part, grid))))
    assert error_in_digits(expected, found) < 100 * ROUNDING  # growing over three steps


@with_solution
def test_a_closed_form_solves_its_problem(small, name):
    problem = small(name)
    twin = DigitsTwin(problem)
    ys = twin.solution()
    options = {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)} if problem.jumps else {}
    with torch.no_grad():
        how = {"method": "dop853", "rtol": 1e-13, "atol": 1e-13, "options": options}
        expected = odeint(problem.func, problem.y0, problem.t, **how)
    found, _ = doubles(np.frompyfunc(plain, 1, 1)(ys))
    # A hundred times the tolerance, because the errors of the steps add up.
    assert relative_error([found], [expected]) < 1e-11
    assert all(a is b for a, b in zip(ys[0].ravel(), twin.y0.ravel(), strict=True))


@pytest.mark.parametrize("contender", ["ours", "torchdiffeq"])
@pytest.mark.parametrize("method", ["dopri5", "adaptive_heun", "rk38"])
def test_small_float64_problems_are_compared_in_fifty_digits(small, contender, method):
    how = {**FIXED, "steps": 7} if method == "rk38" else {"rtol": 1e-4, "atol": 1e-4}
    cell = make_cell(problem="van_der_pol", contender=contender, gradient="backprop", method=method, batch=2, **how)
    assert decline(cell) is None
    problem = small("van_der_pol", end=1.0)
    found = discrete_error(CONTENDERS[contender].observe(problem, cell), problem)
    assert found["error_discrete_oracle"] == "50 digits"
    # torchdiffeq's backprop also differentiates its adaptive step sizes.
    assert 0 < found["error_discrete"] < (1e-14 if contender == "ours" or method == "rk38" else 1e-3)


@pytest.mark.parametrize("name", ["mali", "reversible"])
def test_reversible_steps_are_compared_in_fifty_digits(small, name):
    cell = make_cell(problem="van_der_pol", gradient=name, method="midpoint", batch=2, **FIXED, steps=20)
    problem = small("van_der_pol", end=1.0)
    found = discrete_error(CONTENDERS["ours"].observe(problem, cell), problem)
    assert found["error_discrete_oracle"] == "50 digits" and 0 < found["error_discrete"] < 1e-12


class TestNumbers:
    def test_every_operation_has_its_derivative(self):
        def of(x, y):
            ops = FiftyDigits
            z = ops.exp(x) / y - 2 * ops.sin(x * y) + 3 / ops.sqrt(y) + ops.log(y) * 0.5 - (1 - x)
            return z * ops.tanh(x) + ops.sigmoid(y) / ops.cos(x) - (-ops.softplus(x - y)) + (2 + y) / 7

        x, y = variables([0.3, 0.7])
        found = gradient(of(x, y), [x, y])
        h = FIFTY.mpf(10) ** -20
        for i, slope in enumerate(found):
            at = [[FIFTY.mpf(0.3), FIFTY.mpf(0.7)] for _ in range(2)]
            at[0][i] -= h
            at[1][i] += h
            low, high = (of(*pair) for pair in at)
            # Central differences are of second order, 1e-40 times the third derivative; rounding leaves 50 - 20 digits.
            assert abs((high - low) / (2 * h) / slope - 1) < FIFTY.mpf(10) ** -28

    def test_the_exponential_of_a_matrix_and_its_derivative_agree_with_mpmath(self):
        rows = np.random.default_rng(0).normal(size=(3, 3)) * 3
        direction = np.random.default_rng(1).normal(size=(3, 3))
        A = variables(rows)
        found = FiftyDigits.expm(A)
        block = FIFTY.matrix(6, 6)
        for i in range(3):
            for j in range(3):
                block[i, j] = block[3 + i, 3 + j] = FIFTY.mpf(rows[i, j])
                block[i, 3 + j] = FIFTY.mpf(direction[i, j])
        expected = mpmath.MPContext.expm(FIFTY, block)  # its upper right block is the derivative along direction
        for i in range(3):
            for j in range(3):
                assert abs(found[i, j].value - expected[i, j]) < FIFTY.mpf(10) ** -44
                bars = gradient(found[i, j], A.ravel())
                along = sum(b * FIFTY.mpf(d) for b, d in zip(bars, direction.ravel(), strict=True))
                assert abs(along - expected[i, 3 + j]) < FIFTY.mpf(10) ** -44

    def test_the_derivative_by_an_unused_number_is_zero(self):
        x, y = variables([1.0, 2.0])
        assert gradient(x * 2, [x, y]) == [2, 0]

    def test_two_doubles_hold_thirty_digits(self):
        third = np.array([FIFTY.mpf(1) / 3], dtype=object)
        near, rest = doubles(third)
        assert abs(FIFTY.mpf(near.item()) + FIFTY.mpf(rest.item()) - third[0]) < FIFTY.mpf(10) ** -32
        assert isinstance(Number(0.5).value, FIFTY.mpf) and array(0.5).item() == FIFTY.mpf(0.5)
