"""Time series of the Korteweg-de Vries and Cahn-Hilliard equations, by a structure-preserving integrator.

Both are u_t = S grad H(u) on a periodic interval. H is conserved if S is skew-symmetric and decreases if S is negative
semidefinite; the sum of u is conserved. The average vector field method (Quispel and McLaren, A new class of
energy-preserving numerical integration methods, Journal of Physics A, 2008) preserves this behaviour of H:

    u' = u + dt S g,   g = int_0^1 grad H((1 - x) u + x u') dx,   hence   H(u') - H(u) = g . (u' - u) = dt g . S g.

The integral is computed by two-point Gauss quadrature, which is exact here because grad H is at most cubic. The sizes
are those of Matsubara, Ishikawa and Yaguchi, Deep Energy-Based Modeling of Discrete-Time Physics, NeurIPS 2020.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from symplectic_bench.files.arrays import load_arrays, save_arrays

SERIES, POINTS, STEPS = 100, 50, 500
"""The standard sizes: number of series, grid points of each, and time steps."""

MAX_ITERATIONS = 30

NEWTON_TOLERANCE = 1e-13
"""The size of Newton's last correction relative to the largest value: about rounding error."""

Function = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class System:
    """One equation u_t = S grad H(u) on an interval of length `width`, with time step dt.

    structure(points, dx) is S, (points, points). Functions of u, (batch, points), and dx: energy is H, (batch,);
    gradient is grad H, of u's shape. Its Jacobian is the diagonal matrix of `curvature`, of u's shape, plus `stiffness`
    times the second difference. starts(generator, series, points) draws u at time 0.
    """

    name: str
    width: float
    dt: float
    structure: Callable[[int, float], Tensor]
    energy: Function
    gradient: Function
    curvature: Function
    stiffness: float
    starts: Callable[[torch.Generator, int, int], Tensor]


class NoConvergence(ArithmeticError):
    """Raised if Newton's method does not converge in a step."""


def first_difference(points: int, dx: float) -> Tensor:
    """Return the matrix of (u_{i+1} - u_{i-1}) / (2 dx) on a periodic interval. It is skew-symmetric."""
    ahead = torch.eye(points, dtype=torch.float64).roll(1, dims=1)
    return (ahead - ahead.T) / (2 * dx)


def second_difference(points: int, dx: float) -> Tensor:
    """Return the matrix of (u_{i+1} - 2 u_i + u_{i-1}) / dx^2 on a periodic interval. It is negative semidefinite."""
    one = torch.eye(points, dtype=torch.float64)
    return (one.roll(1, dims=1) - 2 * one + one.roll(-1, dims=1)) / dx**2


def _second_derivative(u: Tensor, dx: float) -> Tensor:
    """Return u_xx by central differences."""
    return (u.roll(-1, dims=1) - 2 * u + u.roll(1, dims=1)) / dx**2


def _slope_energy(u: Tensor, dx: float) -> Tensor:
    """Return the sum of (u_{i+1} - u_i)^2 / (2 dx^2)."""
    return (u.roll(-1, dims=1) - u).square().sum(dim=1) / (2 * dx**2)


ALPHA, BETA = 6.0, 1.0
"""Coefficients of u_t + alpha u u_x + beta u_xxx = 0."""

GAMMA = 5e-4
"""Coefficient of u_t = (u^3 - u - gamma u_xx)_xx."""


def solitons(generator: torch.Generator, series: int, points: int) -> Tensor:
    """Draw the sum of two solitons 2 k^2 sech^2(k (x - c)) for each series, with random k and c."""
    k = 0.5 + 1.5 * torch.rand(2, series, 1, generator=generator, dtype=torch.float64)
    center = KDV_WIDTH * torch.rand(2, series, 1, generator=generator, dtype=torch.float64)
    x = KDV_WIDTH * torch.arange(points, dtype=torch.float64) / points
    away = torch.remainder(x - center + KDV_WIDTH / 2, KDV_WIDTH) - KDV_WIDTH / 2  # the shorter way round
    return (2 * k**2 / torch.cosh(k * away) ** 2).sum(dim=0)


def noisy_mixture(generator: torch.Generator, series: int, points: int) -> Tensor:
    """Draw a homogeneous mixture with uniform noise of amplitude 0.05."""
    return 0.1 * (torch.rand(series, points, generator=generator, dtype=torch.float64) - 0.5)


KDV_WIDTH = 10.0

SYSTEMS = {
    system.name: system
    for system in (
        System(
            "kdv",
            width=KDV_WIDTH,
            dt=1e-3,
            structure=first_difference,
            energy=lambda u, dx: BETA * _slope_energy(u, dx) - ALPHA / 6 * (u**3).sum(dim=1),
            gradient=lambda u, dx: -ALPHA / 2 * u**2 - BETA * _second_derivative(u, dx),
            curvature=lambda u, dx: -ALPHA * u,
            stiffness=-BETA,
            starts=solitons,
        ),
        System(
            "cahn_hilliard",
            width=1.0,
            dt=1e-4,
            structure=second_difference,
            energy=lambda u, dx: ((u**2 - 1) ** 2).sum(dim=1) / 4 + GAMMA * _slope_energy(u, dx),
            gradient=lambda u, dx: u**3 - u - GAMMA * _second_derivative(u, dx),
            curvature=lambda u, dx: 3 * u**2 - 1,
            stiffness=-GAMMA,
            starts=noisy_mixture,
        ),
    )
}

GAUSS = ((1 - 1 / math.sqrt(3)) / 2, (1 + 1 / math.sqrt(3)) / 2)
"""Nodes of the quadrature on [0, 1], each of weight 1/2."""


def generate(system: System, series: int = SERIES, points: int = POINTS, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Return u at the start and after every step, (series, steps + 1, points), in float64.

    Raise NoConvergence if Newton's method fails in a step.
    """
    dx = system.width / points
    S, laplacian = system.structure(points, dx), second_difference(points, dx)
    u = system.starts(torch.Generator().manual_seed(seed), series, points)
    found = [u]
    for _ in range(steps):
        u = _step(system, S, laplacian, u, dx)
        found.append(u)
    return torch.stack(found, dim=1)


def _step(system: System, S: Tensor, laplacian: Tensor, u: Tensor, dx: float) -> Tensor:
    """Solve one step by Newton's method from u, iterating on all series until the last one has converged."""
    one, after = torch.eye(len(S), dtype=torch.float64), u
    for _ in range(MAX_ITERATIONS):
        between = [(1 - x) * u + x * after for x in GAUSS]
        g = sum((system.gradient(v, dx) / 2 for v in between), start=torch.zeros_like(u))
        residual = after - u - system.dt * g @ S.T
        diagonal = sum((x / 2 * system.curvature(v, dx) for x, v in zip(GAUSS, between, strict=True)), start=0 * u)
        jacobian = one - system.dt * S @ (torch.diag_embed(diagonal) + system.stiffness / 2 * laplacian)
        correction = torch.linalg.solve(jacobian, residual)
        after = after - correction
        if correction.abs().max() <= NEWTON_TOLERANCE * max(1.0, after.abs().max()):
            return after
    raise NoConvergence(f"{system.name}: a step of {system.dt} did not converge in {MAX_ITERATIONS} iterations")


def cache_series(name: str, cache_dir: Path) -> None:
    """Write the series of the standard sizes into cache_dir unless they are there. This takes about 15 s."""
    file = series_file(name, cache_dir)
    if not file.exists():
        save_arrays(file, u=generate(SYSTEMS[name]).numpy())


def load_series(name: str, cache_dir: Path) -> Tensor:
    """Return the series that cache_series wrote, (series, steps + 1, points)."""
    return torch.from_numpy(load_arrays(series_file(name, cache_dir))["u"])


def series_file(name: str, cache_dir: Path) -> Path:
    """Return the path at which the series are cached."""
    return cache_dir / f"series-{name}.npz"
