"""The equations of coupled stages against linear algebra, and how they fail."""

import pytest
import torch

from symplectic_adjoint import METHODS, StageNotSolved, solve
from symplectic_adjoint.field.coupled_solver import CoupledSolver
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.linearization import Linearization
from tests.fields import Counted

LINEAR = ["dense", "batched", "gmres"]
SHAPE = (2, 3)


class Affine:
    """f(t, y) = M(t) y + c, which couples the entries of a sample; M(t) = (1 + t) M(0)."""

    def __init__(self, size=SHAPE[1], seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.M = torch.randn(size, size, dtype=torch.float64, generator=generator)
        self.c = torch.randn(size, dtype=torch.float64, generator=generator)

    def __call__(self, t, y):
        return (1.0 + t) * (y @ self.M.T) + self.c

    def linearize(self, t, y, *, with_value=False):
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            k = self(t, y)
        return Linearization(edge_to(k), (y,), k.detach() if with_value else None)


def solver_for(A, linear):
    return CoupledSolver(torch.float64, linear, None, A)


def whole_matrix(func, times, h, A):
    """Return I - h M for one sample, where block (i, j) of M is a_ij M(t_i)."""
    n = len(func.M)
    blocks = [[a * (1.0 + t) * func.M for a in row] for t, row in zip(times, A, strict=True)]
    return torch.eye(len(A) * n, dtype=torch.float64) - h * torch.cat([torch.cat(row, 1) for row in blocks])


def together(xs):
    """Return the values of all stages, one row for each sample."""
    return torch.stack(xs, 1).flatten(1)


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("method", ["radauIIA3", "gl6"])
def test_stages_and_their_transposes_solve_the_linear_systems(method, linear):
    func, A, h = Affine(), METHODS[method].floats.matrix, 0.4
    times = [0.3 + h * c for c in METHODS[method].floats.c]
    y = torch.arange(6, dtype=torch.float64).reshape(SHAPE)
    solver, matrix = solver_for(A, linear), whole_matrix(func, times, h, A)

    ks = solver.solve_together(func, times, y, h)
    expected = torch.linalg.solve(matrix, together([func(t, y) for t in times]).T).T
    assert torch.allclose(together(ks), expected, rtol=1e-12, atol=1e-12)
    assert all(torch.allclose(k, func(t, y + h * sum(a * x for a, x in zip(row, ks, strict=True))), rtol=1e-12)
               for k, t, row in zip(ks, times, A, strict=True))  # fmt: skip

    rhs = [torch.randn(SHAPE, dtype=torch.float64) for _ in A]
    ws = solver.solve_together_transposed(lambda i: func.linearize(times[i], y), times, h, rhs)
    expected = torch.linalg.solve(matrix.T, together(rhs).T).T
    assert torch.allclose(together(ws), expected, rtol=1e-12, atol=1e-12)

    straight, transposed = solver.exact_solves_together([func.linearize(t, y) for t in times], h)
    for found, system in ((straight, matrix), (transposed, matrix.T)):
        got = together(solver.parts(found(solver.stack(rhs)), y))
        assert torch.allclose(got, torch.linalg.solve(system, together(rhs).T).T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("linear", LINEAR)
def test_a_singular_matrix_is_an_error_that_names_times_rate_and_linear_solver(linear):
    """With this A and J = 1, I - h A is exactly singular for h = 1."""
    func = Affine(size=1)
    func.M, A = torch.ones(1, 1, dtype=torch.float64), ((0.5, 0.5), (0.5, 0.5))
    y, times = torch.ones(2, 1, dtype=torch.float64), [0.0, 0.0]
    message = rf"the coupled stages from t = 0 to 0 were not solved in .*of the one before \(linear solver: {linear}\)"
    with pytest.raises(StageNotSolved, match=message):
        solver_for(A, linear).solve_together(func, times, y, 1.0)
    solver = solver_for(A, linear)
    solver.solve_together(func, times, y, 0.5)
    rhs = [torch.ones(2, 1, dtype=torch.float64)] * 2
    with pytest.raises(StageNotSolved, match=f"the transpose of {message}"):
        solver.solve_together_transposed(lambda i: func.linearize(times[i], y), times, 1.0, rhs)


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.coupled])
def test_stages_without_a_solution_end_the_solve(method, linear):
    """The equations with y^2 have no real solution for a large step."""
    func, y0, t = Counted(lambda t, y: y * y), torch.ones(1).double(), torch.tensor([0.0, 100.0]).double()
    with pytest.raises(StageNotSolved, match=r"the coupled stages from t = \d.* to \d.*of the one before") as caught:
        solve(func, y0, t, method=method, options={"step_size": 10.0, "linear": linear})
    assert f"(linear solver: {linear})" in str(caught.value)
    assert caught.value.accepted == 0 and func.calls < 600
