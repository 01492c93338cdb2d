"""Central differences on a periodic interval, where the last point is a neighbour of the first."""

from torch import Tensor

from symplectic_bench.problems.formula import Arithmetic, Array


def first_difference(u: Tensor, dx: float) -> Tensor:
    """Return (u_{i+1} - u_{i-1}) / (2 dx) for each row u of a batch. The operator is skew-symmetric."""
    return (u.roll(-1, dims=1) - u.roll(1, dims=1)) / (2 * dx)


def second_difference(u: Tensor, dx: float, dim: int = 1) -> Tensor:
    """Return (u_{i+1} - 2 u_i + u_{i-1}) / dx^2 along `dim` of a batch. The operator is negative semidefinite."""
    return (u.roll(-1, dims=dim) - 2 * u + u.roll(1, dims=dim)) / (dx * dx)


def first_difference_formula(ops: Arithmetic, u: Array, dx: float) -> Array:
    """Return first_difference in any arithmetic."""
    behind, ahead = _neighbours(ops, u)
    return (ahead - behind) / (2 * dx)


def second_difference_formula(ops: Arithmetic, u: Array, dx: float, axis: int = 1) -> Array:
    """Return second_difference in any arithmetic."""
    behind, ahead = _neighbours(ops, u, axis)
    return (ahead - 2 * u + behind) / (dx * dx)


def _neighbours(ops: Arithmetic, u: Array, axis: int = 1) -> tuple[Array, Array]:
    """Return u_{i-1} and u_{i+1}, by slices: in symbols every zero of a matrix would be a term of its own."""
    before = (slice(None),) * axis
    first, last = (*before, slice(None, 1)), (*before, slice(-1, None))
    behind = ops.concatenate([u[last], u[(*before, slice(None, -1))]], axis=axis)
    ahead = ops.concatenate([u[(*before, slice(1, None))], u[first]], axis=axis)
    return behind, ahead
