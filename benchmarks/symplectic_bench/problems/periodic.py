"""Central differences of functions on a periodic interval: the last point is the first one's neighbour."""

from torch import Tensor

from symplectic_bench.problems.formula import Arithmetic, Array


def first_difference(u: Tensor, dx: float) -> Tensor:
    """(u_{i+1} - u_{i-1}) / 2 dx for each row u of a batch; a skew-symmetric matrix."""
    return (u.roll(-1, dims=1) - u.roll(1, dims=1)) / (2 * dx)


def second_difference(u: Tensor, dx: float) -> Tensor:
    """(u_{i+1} - 2 u_i + u_{i-1}) / dx^2."""
    return (u.roll(-1, dims=1) - 2 * u + u.roll(1, dims=1)) / (dx * dx)


def first_difference_formula(ops: Arithmetic, u: Array, dx: float) -> Array:
    behind, ahead = _neighbours(ops, u)
    return (ahead - behind) / (2 * dx)


def second_difference_formula(ops: Arithmetic, u: Array, dx: float) -> Array:
    behind, ahead = _neighbours(ops, u)
    return (ahead - 2 * u + behind) / (dx * dx)


def _neighbours(ops: Arithmetic, u: Array) -> tuple[Array, Array]:
    """By slices, not by a matrix of zeros, each of which would be a term of its own to symbols."""
    behind = ops.concatenate([u[:, -1:], u[:, :-1]], axis=1)
    ahead = ops.concatenate([u[:, 1:], u[:, :1]], axis=1)
    return behind, ahead
