"""The Kepler problem: a known orbit that needs short steps near the sun and long ones far from it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

HALVINGS = 60
"""Bisections of an interval of length 4: they leave 3e-18, from which two Newton steps reach fifty digits."""


class KeplerField(nn.Module):
    """x' = v,  v' = -mu x / |x|^3 in the plane, y = (x, v), with mu the only parameter."""

    def __init__(self, mu: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        x, v = y[:, :2], y[:, 2:]
        squared = (x * x).sum(dim=1, keepdim=True)
        return torch.cat([v, -self.mu * x / (squared * squared.sqrt())], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    (mu,) = theta
    x, v = y[:, :2], y[:, 2:]
    squared = (x * x).sum(axis=1, keepdims=True)
    return ops.concatenate([v, -mu * x / (squared * ops.sqrt(squared))], axis=1)


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return x(t) = f x + g v and its derivative, by Lagrange's f and g, for an ellipse.

    f and g are functions of the change of the eccentric anomaly E.
    Battin, An Introduction to the Mathematics and Methods of Astrodynamics, revised edition, 1999, section 4.3.
    """
    del held
    (mu,) = theta
    x, v = y0[:, :2], y0[:, 2:]
    r0 = ops.sqrt((x * x).sum(axis=1, keepdims=True))
    a = r0 / (2 - r0 * (v * v).sum(axis=1, keepdims=True) / mu)  # the semi-major axis, by the energy
    per_time, area = ops.sqrt(mu / (a * a * a)), ops.sqrt(mu * a)
    e_cos, e_sin = 1 - r0 / a, (x * v).sum(axis=1, keepdims=True) / area  # e cos E and e sin E at the start
    D = eccentric_anomaly_change(ops, e_cos, e_sin, per_time * t)
    cos, sin = ops.cos(D), ops.sin(D)
    r = a * (1 - e_cos * cos + e_sin * sin)
    f, g = 1 - a * (1 - cos) / r0, t + (sin - D) / per_time
    df, dg = -area * sin / (r * r0), 1 - a * (1 - cos) / r
    return ops.concatenate([f * x + g * v, df * x + dg * v], axis=1)


def eccentric_anomaly_change(ops: Arithmetic, e_cos: Array, e_sin: Array, M: Array) -> Array:
    """Return the change D of the eccentric anomaly E while the mean anomaly changes by M.

    e_cos and e_sin are e cos E and e sin E at the start. Kepler's equation as a difference is
    M = D - e (sin(E + D) - sin E), so |D - M| < 2. It is solved on detached values; one more Newton step on the
    differentiable ones leaves the root unchanged and adds its first derivatives.
    """

    def excess(D: Array, e_cos: Array, e_sin: Array, M: Array) -> Array:
        return D - e_cos * ops.sin(D) + e_sin * (1 - ops.cos(D)) - M

    def newton(D: Array, e_cos: Array, e_sin: Array, M: Array) -> Array:
        slope = 1 - e_cos * ops.cos(D) + e_sin * ops.sin(D)  # r / a, positive
        return D - excess(D, e_cos, e_sin, M) / slope

    values = [ops.plain(x) for x in (e_cos, e_sin, M)]
    low, high = values[-1] - 2, values[-1] + 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = excess(middle, *values) < 0
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    D = newton(newton(low, *values), *values)
    return newton(D, e_cos, e_sin, M)


def draw(source: Source, batch: int, *, eccentricity: float = 0.3, end: float = 5.0, outputs: int = 10) -> Problem:
    """Draw starts near the periapsis of rotated ellipses of semi-major axis 1 and period 2 pi.

    Raise ValueError unless 0 <= eccentricity < 1.
    """
    if not 0 <= eccentricity < 1:
        raise ValueError(f"eccentricity must be in [0, 1), that of an ellipse; got {eccentricity}")
    angle = source.normal(batch, std=0.3)
    cos, sin = angle.cos(), angle.sin()
    near, fast = 1 - eccentricity, ((1 + eccentricity) / (1 - eccentricity)) ** 0.5
    periapsis = torch.stack([near * cos, near * sin, -fast * sin, fast * cos], dim=1)
    y0 = periapsis + source.normal(batch, 4, std=0.02)
    return Problem(KeplerField(1.0), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 4)))


KEPLER = Family("kepler", draw, formula, solution)
