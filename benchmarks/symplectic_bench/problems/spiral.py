"""The cubic spiral y' = A y^3 of introductions to neural ODEs, with an optional network.

Chen, Rubanova, Bettencourt and Duvenaud, Neural Ordinary Differential Equations, NeurIPS 2018, in whose library
torchdiffeq it is the demonstration.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import dense
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class SpiralField(nn.Module):
    """y' = A y^3 + net(y^3), where the cube is taken component by component and net may be None."""

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
    """Evaluate the field in any arithmetic."""
    del held, t
    A, *net = theta
    cube = y * y * y
    spiral = cube @ A.T
    if not net:
        return spiral
    W, b, V, c = net
    return spiral + ops.tanh(cube @ W.T + b) @ V.T + c


def draw(source: Source, batch: int, *, width: int = 0, end: float = 5.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about (1.5, 0), and a network with one hidden layer of `width` units.

    With width=0 there is no network, and the 4 parameters are those of A.
    """
    A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    net = None
    if width:
        net = nn.Sequential(dense(source, 2, width), nn.Tanh(), dense(source, width, 2, gain=0.1))
    y0 = torch.tensor([1.5, 0.0], dtype=torch.float64) + source.normal(batch, 2, std=0.2)
    return Problem(SpiralField(A, net), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


SPIRAL = Family("spiral", draw, formula)
