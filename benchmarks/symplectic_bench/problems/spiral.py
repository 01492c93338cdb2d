"""The cubic spiral y' = A y^3 that introductions to neural ODEs fit, with an optional network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import dense
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class SpiralField(nn.Module):
    """y' = A y^3 + net(y^3), the cube taken by component; net may be None."""

    def __init__(self, A: Tensor, net: nn.Module | None) -> None:
        super().__init__()
        self.A = nn.Parameter(A)
        self.net = net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        cube = y * y * y
        spiral = cube @ self.A.T
        return spiral if self.net is None else spiral + self.net(cube)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    del held, t
    A, *net = theta
    cube = y * y * y
    spiral = cube @ A.T
    if not net:
        return spiral
    W, b, V, c = net
    return spiral + ops.tanh(cube @ W.T + b) @ V.T + c


def draw(source: Source, batch: int, *, width: int = 0, end: float = 5.0, outputs: int = 10) -> Problem:
    """width=0 has the matrix A alone (4 parameters); otherwise a network of one hidden layer adds a little."""
    A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    net = None
    if width:
        net = nn.Sequential(dense(source, 2, width), nn.Tanh(), dense(source, width, 2, gain=0.1))
    y0 = torch.tensor([1.5, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.2)
    return Problem(SpiralField(A, net), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


SPIRAL = Family("spiral", draw, formula)
