"""A continuous normalizing flow with the exact trace, which costs one vector-Jacobian product per dimension.

Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-form Continuous Dynamics for Scalable Reversible
Generative Models, ICLR 2019, call it the brute-force trace.
"""

from collections.abc import Sequence

import torch

from symplectic_bench.problems.flow import NegativeLogLikelihood, Transport, along, draw_velocity
from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, Problem, Source, output_times


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic, with each column of df/dz by forward differentiation."""
    z = y[:, :-1]
    velocity, trace = 0 * z, 0 * y[:, :1]
    for column in range(z.shape[1]):
        unit = ops.concatenate([0 * z[:, :column], 0 * z[:, :1] + 1, 0 * z[:, column + 1 :]], axis=1)
        velocity, dz = along(ops, theta, held, t, z, unit)
        trace = trace + dz[:, column : column + 1]
    return ops.concatenate([velocity, -trace], axis=1)


def draw(
    source: Source,
    batch: int,
    *,
    dim: int = 2,
    width: int = 32,
    layers: int = 2,
    nonlinearity: str = "softplus",
    end: float = 1.0,
) -> Problem:
    """Draw `batch` samples of a normal distribution in `dim` dimensions and a flow like that of the problem flow."""
    x = source.normal(batch, dim)
    func = Transport(draw_velocity(source, dim, width, layers, nonlinearity), noise=None)
    y0 = torch.cat([x, torch.zeros(batch, 1, dtype=torch.float64)], dim=1)
    return Problem(func, y0, output_times(end, outputs=1), NegativeLogLikelihood())


FLOW_EXACT = Family("flow_exact", draw, formula)
