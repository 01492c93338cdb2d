"""The coefficients of the methods that torchdiffeq or SciPy have too, compared one by one.

Order conditions do not determine a method: they cannot see a wrong a_ij of fehlberg2. Bounds are a few ulp of the
largest coefficient, since the others compute theirs in floats.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchdiffeq
from scipy.integrate import DOP853, RK23, RK45
from torchdiffeq._impl.adaptive_heun import AdaptiveHeunSolver
from torchdiffeq._impl.bosh3 import Bosh3Solver
from torchdiffeq._impl.dopri5 import Dopri5Solver
from torchdiffeq._impl.dopri8 import Dopri8Solver
from torchdiffeq._impl.fehlberg2 import Fehlberg2

import symplectic_adjoint as sa

# Our names of torchdiffeq's fixed-step methods, and theirs.
FIXED = {"euler": "euler", "midpoint": "midpoint", "heun2": "heun2", "heun3": "heun3", "rk38": "rk4"}
# torchdiffeq's solvers, and what our error weights are times theirs. It has Shampine's weights of dopri5, which are
# those of Dormand and Prince divided by 1.5, with the other sign.
ADAPTIVE = {
    "adaptive_heun": (AdaptiveHeunSolver, -1.0),
    "fehlberg2": (Fehlberg2, 1.0),
    "bosh3": (Bosh3Solver, 1.0),
    "dopri5": (Dopri5Solver, 1.5),
    "dopri8": (Dopri8Solver, 1.0),
}
SCIPY = {"bosh3": RK23, "dopri5": RK45, "dop853": DOP853}
SIGMAS = [0.125, 0.5, 0.8125, 1.0]


def array(row: Sequence[object], length: int | None = None) -> np.ndarray:
    """Return a row as floats, padded with zeros to the length."""
    values = np.array([float(x) for x in row])  # type: ignore[arg-type]
    return values if length is None else np.pad(values, (0, length - len(values)))


def square(rows: Sequence[Sequence[object]]) -> np.ndarray:
    return np.stack([array(row, len(rows)) for row in rows])


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=8 * np.finfo(float).eps * max(1.0, np.abs(theirs).max()))


def weights_at(method: sa.ButcherTableau, sigma: float) -> np.ndarray:
    return array(method.interpolant.weights_at(sigma), len(method.extended_A))


@pytest.mark.parametrize(("name", "theirs"), FIXED.items())
def test_the_fixed_step_methods_are_torchdiffeqs(name, theirs):
    """Stage i returns the unit vector i, so that the states of a step of size 1 are the rows of A, and then b."""
    method = sa.METHODS[name]
    calls: list[tuple[float, np.ndarray]] = []

    def func(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append((t.item(), y.numpy().copy()))
        return torch.eye(len(y), dtype=torch.float64)[len(calls) - 1]

    y0, t = torch.zeros(method.stages, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    b = torchdiffeq.odeint(func, y0, t, method=theirs)[-1]
    assert_same(array(method.c), np.array([c for c, _ in calls]))
    assert_same(square(method.A), np.stack([a for _, a in calls]))
    assert_same(array(method.b), b.numpy())


@pytest.mark.parametrize(("name", "solver", "factor"), [(name, *row) for name, row in ADAPTIVE.items()])
def test_the_adaptive_methods_are_torchdiffeqs(name, solver, factor):
    method, theirs = sa.METHODS[name], solver.tableau
    rows = len(theirs.c_sol)  # those of dopri8 end with f at the end of the step, which our interpolant adds
    assert_same(square(method.extended_A[:rows]), square([[], *theirs.beta]))
    assert_same(array(method.extended_c[:rows]), array([0.0, *theirs.alpha]))
    assert_same(array(method.b, rows), array(theirs.c_sol))
    assert method.b_error is not None
    assert_same(array(method.b_error, rows), factor * array(theirs.c_error))


def test_the_dense_output_of_dopri5_is_torchdiffeqs():
    """Both are the quartic with the values and slopes of the step's ends, and so equal if their midpoints are."""
    assert_same(weights_at(sa.METHODS["dopri5"], 0.5), array(Dopri5Solver.mid))


@pytest.mark.parametrize(("name", "solver"), SCIPY.items())
def test_the_steps_are_scipys(name, solver):
    method, s = sa.METHODS[name], sa.METHODS[name].stages
    assert_same(square(method.A)[:s, :s], np.pad(solver.A, ((0, 0), (0, s - solver.A.shape[1]))))
    assert_same(array(method.b)[:s], solver.B)
    assert_same(array(method.c)[:s], solver.C)
    if name == "dop853":
        assert_same(array(method.b_error or (), s + 1), solver.E5)
        assert_same(array(method.b_error_low or (), s + 1), solver.E3)
    else:
        assert_same(array(method.b_error or ()), -solver.E)  # SciPy's sign is that of b_hat - b


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_the_dense_output_is_scipys(name, sigma):
    theirs = SCIPY[name].P
    assert_same(weights_at(sa.METHODS[name], sigma), theirs @ sigma ** np.arange(1, theirs.shape[1] + 1))


def test_the_extra_stages_of_dop853_are_scipys():
    method, rows = sa.METHODS["dop853"], DOP853.D.shape[1]
    extra = DOP853.A_EXTRA[:, :rows]
    assert_same(square(method.extended_A)[-len(extra) :], np.pad(extra, ((0, 0), (0, rows - extra.shape[1]))))
    assert_same(array(method.extended_c)[-len(extra) :], DOP853.C_EXTRA)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_dense_output_of_dop853_is_scipys(sigma):
    method, D = sa.METHODS["dop853"], DOP853.D
    start, end = np.eye(D.shape[1])[[0, method.stages]]
    b = array(method.b, D.shape[1])
    total = np.zeros(D.shape[1])
    for i, term in enumerate(reversed([b, start - b, 2.0 * b - start - end, *D])):  # as in SciPy's Dop853DenseOutput
        total = (total + term) * (sigma if i % 2 == 0 else 1.0 - sigma)
    # Ours are expanded in powers of sigma, with coefficients up to 550 that cancel.
    np.testing.assert_allclose(weights_at(method, sigma), total, rtol=0, atol=1e-12)
