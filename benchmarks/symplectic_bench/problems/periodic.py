"""Central differences on a periodic interval, where the last point is a neighbour of the first."""

from torch import Tensor

from symplectic_bench.problems.formula import Arithmetic, Array


def first_difference(u: Tensor, dx: float) -> Tensor:
    """Return (u_{i+1} - u_{i-1}) / (2 dx) for each row u of a batch. The operator is skew-symmetric."""
    return (u.roll(-1, dims=1) - u.roll(1, dims=1)) / (2 * dx)


def second_difference(u: Tensor, dx: float) -> Tensor:
    """Return (u_{i+1} - 2 u_i + u_{i-1}) / dx^2 for each row u of a batch. The operator is negative semidefinite."""
    return (u.roll(-1, dims=1) - 2 * u + u.roll(1, dims=1)) / (dx * dx)


def first_difference_formula(ops: Arithmetic, u: Array, dx: float) -> Array:
    """Return first_difference in any arithmetic."""
    behind, ahead = _neighbours(ops, u)
    return (ahead - behind) / (2 * dx)


def second_difference_formula(ops: Arithmetic, u: Array, dx: float) -> Array:
    """Return second_difference in any arithmetic."""
    behind, ahead = _neighbours(ops, u)
    return (ahead - 2 * u + behind) / (dx * dx)


def _neighbours(ops: Arithmetic, u: Array) -> tuple[Array, Array]:
    """Return u_{i-1} and u_{i+1}, by slices: in symbols every zero of a matrix would be a term of its own."""
    behind = ops.concatenate([u[:, -1:], u[:, :-1]], axis=1)
    ahead = ops.concatenate([u[:, 1:], u[:, :1]], axis=1)
    return behind, ahead
