"""The damped harmonic oscillator, which shows phase errors and has a known solution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class HarmonicField(nn.Module):
    """x' = v,  v' = -omega^2 x - 2 zeta omega v, with the frequency omega and the damping ratio zeta the parameters."""

    def __init__(self, omega: float, zeta: float) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.tensor(omega, dtype=torch.float64))
        self.zeta = nn.Parameter(torch.tensor(zeta, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        x, v = y[:, 0], y[:, 1]
        return torch.stack([v, -self.omega * (self.omega * x + 2 * self.zeta * v)], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    omega, zeta = theta
    x, v = y[:, 0], y[:, 1]
    return ops.stack([v, -omega * (omega * x + 2 * zeta * v)], axis=1)


def solution(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y0: Array) -> Array:
    """Return y(t) for zeta < 1: e^(-zeta omega t) times sines and cosines of omega sqrt(1 - zeta^2) t."""
    del held
    omega, zeta = theta
    x, v = y0[:, 0], y0[:, 1]
    decay, frequency = zeta * omega, omega * ops.sqrt(1 - zeta * zeta)
    envelope, angle = ops.exp(-decay * t), frequency * t
    cosine, sine = envelope * ops.cos(angle), envelope * ops.sin(angle) / frequency
    return ops.stack(
        [x * cosine + (v + decay * x) * sine, v * cosine - (omega * omega * x + decay * v) * sine],
        axis=1,
    )


def draw(
    source: Source, batch: int, *, omega: float = 2.0, zeta: float = 0.1, end: float = 5.0, outputs: int = 10
) -> Problem:
    """Draw starts scattered about (1, 0). A period takes 2 pi / (omega sqrt(1 - zeta^2)).

    Raise ValueError unless 0 <= zeta < 1.
    """
    if not 0 <= zeta < 1:
        raise ValueError(f"zeta must be in [0, 1), where there are oscillations; got {zeta}")
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.3)
    return Problem(HarmonicField(omega, zeta), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


HARMONIC = Family("harmonic", draw, formula, solution)
