"""A spiral driven by a network whose output lags behind by a short time: a neural ODE with a fast and a slow part.

The cubic spiral is that of Chen, Rubanova, Bettencourt and Duvenaud, NeurIPS 2018; the lag makes it a singularly
perturbed system (Tikhonov 1952; Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, chapter VI).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import dense
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, Split, output_times


class DrivenSpiral(nn.Module):
    """y' = A y^3 + z for the state (y, z), with the cube component by component and A the parameter; z is not moved."""

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.A = nn.Parameter(A)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        del t
        y, z = state.chunk(2, dim=1)
        return torch.cat([(y * y * y) @ self.A.T + z, torch.zeros_like(z)], dim=1)


class Lag(nn.Module):
    """z' = e^r (net(y) - z) for the state (y, z), with the log rate r and the network's weights the parameters."""

    def __init__(self, log_rate: float, net: nn.Module) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.tensor(log_rate, dtype=torch.float64))
        self.net = net

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        del t
        y, z = state.chunk(2, dim=1)
        return torch.cat([torch.zeros_like(y), self.log_rate.exp() * (self.net(y) - z)], dim=1)


def spiral(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the spiral in any arithmetic."""
    del held, t
    y, z = y[:, :2], y[:, 2:]
    return ops.concatenate([(y * y * y) @ theta[0].T + z, 0 * z], axis=1)


def lag(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the lag in any arithmetic."""
    del held, t
    _, log_rate, W, b, V, c = theta
    y, z = y[:, :2], y[:, 2:]
    return ops.concatenate([0 * y, ops.exp(log_rate) * (ops.tanh(y @ W.T + b) @ V.T + c - z)], axis=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    return spiral(ops, theta, held, t, y) + lag(ops, theta, held, t, y)


def draw(
    source: Source, batch: int, *, width: int = 16, rate: float = 100.0, end: float = 2.0, outputs: int = 4
) -> Problem:
    """Draw starts scattered about (1.5, 0) with z near 0, and a network with one hidden layer of `width` units.

    z settles within 1 / rate. Stability limits explicit methods to steps of about 3 / rate.
    """
    A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    net = nn.Sequential(dense(source, 2, width), nn.Tanh(), dense(source, width, 2))
    y = torch.tensor([1.5, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.2)
    y0 = torch.cat([y, source.normal(batch, 2, std=0.1)], dim=1)
    log_rate = float(torch.tensor(rate, dtype=torch.float64).log())
    func = Split(DrivenSpiral(A), Lag(log_rate, net))
    return Problem(func, y0, output_times(end, outputs), MeanSquare(source.normal(batch, 4)))


STIFF_SPIRAL = Family("stiff_spiral", draw, formula, split=(spiral, lag))
