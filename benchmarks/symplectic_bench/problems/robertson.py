"""Robertson's kinetics of three reactions whose rates differ by up to a factor of a billion: a stiff problem.

Robertson, The solution of a set of reaction rate equations, in Walsh (ed.), Numerical Analysis: An Introduction, 1966.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times

SCALE = 1e4
"""Scale of B, which never exceeds 4e-5: with the tolerances of A and C it could become negative and explode."""


class RobertsonField(nn.Module):
    """A -> B at rate k_1 A,  2 B -> B + C at k_2 B^2,  B + C -> A + C at k_3 B C; y = (A, 10^4 B, C).

    The parameters are log k. The derivatives with respect to k would differ as much as the rates do, and a norm of them
    would see only the one for the smallest rate.
    """

    def __init__(self, log_rates: Tensor) -> None:
        super().__init__()
        self.log_rates = nn.Parameter(log_rates)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        slow, fast, back = self.log_rates.exp()
        A, B, C = y[:, 0], y[:, 1] / SCALE, y[:, 2]
        made, used, returned = slow * A, fast * B * B, back * B * C
        return torch.stack([returned - made, SCALE * (made - returned - used), used], dim=1)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held, t
    slow, fast, back = ops.exp(theta[0])
    A, B, C = y[:, 0], y[:, 1] / SCALE, y[:, 2]
    made, used, returned = slow * A, fast * B * B, back * B * C
    return ops.stack([returned - made, SCALE * (made - returned - used), used], axis=1)


def draw(source: Source, batch: int, *, end: float = 0.5, outputs: int = 10) -> Problem:
    """Draw starts with nearly all A, some C and no B. B equilibrates within 1e-3, which makes the problem stiff.

    Implicit methods are usually run to 40 and beyond. Stability limits explicit ones to steps of 1e-3 or less.
    """
    some = 0.01 * source.normal(batch).exp()
    y0 = torch.stack([1 - some, torch.zeros_like(some), some], dim=1)
    log_rates = torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64).log()
    return Problem(RobertsonField(log_rates), y0, output_times(end, outputs), MeanSquare(source.normal(batch, 3)))


ROBERTSON = Family("robertson", draw, formula)
