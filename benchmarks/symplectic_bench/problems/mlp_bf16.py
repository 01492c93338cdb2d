"""The multilayer perceptron in mixed precision: its layers compute in bfloat16, its state keeps its own dtype."""

import torch
from torch import Tensor, nn

from symplectic_bench.problems.mlp import draw as draw_mlp
from symplectic_bench.problems.mlp import formula
from symplectic_bench.problems.problem import Family, Problem, Source


class AutocastField(nn.Module):
    """A network under autocast, whose value is cast back to the state's dtype.

    autocast leaves float64 alone, so replays and references in float64 are those of the network without its rounding.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, dtype=torch.bfloat16):
            return self.network(t, y).to(y.dtype)


def draw(
    source: Source,
    batch: int,
    *,
    state: int = 8,
    width: int = 64,
    layers: int = 2,
    end: float = 4.0,
    outputs: int = 1,
) -> Problem:
    """Draw the problem mlp of these sizes. Its formula is that of mlp, without the rounding."""
    problem = draw_mlp(source, batch, state=state, width=width, layers=layers, end=end, outputs=outputs)
    return Problem(AutocastField(problem.func), problem.y0, problem.t, problem.loss)


MLP_BF16 = Family("mlp_bf16", draw, formula, mixed=True)
