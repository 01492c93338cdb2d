"""A white dwarf: the density of degenerate matter that gravity compresses, from near the centre outwards.

Chandrasekhar, An Introduction to the Study of Stellar Structure, 1939, chapter XI.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

INSIDE = 0.5
"""The radius at time 0: the field is singular at the centre."""


class WhiteDwarfField(nn.Module):
    """phi'' = -(phi^2 - c)^(3/2) - 2 phi' / r at the radius r = t + INSIDE; y = (phi, phi'), c the only parameter.

    The surface is where phi^2 = c. There the field ends.
    """

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c, dtype=torch.float64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        phi, slope = y[:, 0], y[:, 1]
        above = phi * phi - self.c
        return torch.stack([slope, -above * above.sqrt() - 2 * slope / (t + INSIDE)], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held
    (c,) = theta
    phi, slope = y[:, 0], y[:, 1]
    above = phi * phi - c
    return ops.stack([slope, -above * ops.sqrt(above) - 2 * slope / (t + INSIDE)], axis=1)


def draw(source: Source, batch: int, *, c: float = 0.01, end: float = 4.0, outputs: int = 10) -> Problem:
    """Draw starts scattered about the solution that is regular at the centre, where phi = 1.

    There phi = 1 - q^3 r^2 / 6 + q^4 r^4 / 40 - q^5 (5 q^2 + 14) r^6 / 7! + .., q^2 = 1 - c. With the default c the
    surface is at r = 5.357, 0.857 beyond the end. Raise ValueError unless 0 <= c < 1.
    """
    if not 0 <= c < 1:
        raise ValueError(f"c must be in [0, 1), the square of phi at the surface; got {c}")
    q, r = (1 - c) ** 0.5, INSIDE
    terms = {2: -(q**3) / 6, 4: q**4 / 40, 6: -(q**5) * (5 * q**2 + 14) / 5040}
    phi, slope = 1 + sum(a * r**n for n, a in terms.items()), sum(n * a * r ** (n - 1) for n, a in terms.items())
    y0 = torch.tensor([phi, slope], dtype=torch.float64) + source.normal(batch, 2, std=0.01)
    return Problem(WhiteDwarfField(c), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 2)))


WHITE_DWARF = Family("white_dwarf", draw, formula)
