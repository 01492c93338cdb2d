"""The latent states of series that are observed at times of their own.

Rubanova, Chen and Duvenaud, Latent ordinary differential equations for irregularly-sampled time series, NeurIPS 2019,
section 3.2: a batch is solved once over the union of the times of its series.
"""

import torch
from torch import Tensor

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import draw_field, formula
from symplectic_bench.problems.problem import Family, Loss, Problem, Source


class MaskedMeanSquare(Loss):
    """The mean of (y decoder^T - value)^2 over the entries that were observed: mask is 1 there and 0 elsewhere."""

    decoder: Tensor
    value: Tensor
    mask: Tensor

    def __init__(self, decoder: Tensor, value: Tensor, mask: Tensor) -> None:
        super().__init__()
        for name, buffer in (("decoder", decoder), ("value", value), ("mask", mask)):
            self.register_buffer(name, buffer)

    def forward(self, ys: Tensor) -> Tensor:
        off = (ys[1:] @ self.decoder.T - self.value) * self.mask
        return off.square().sum() / self.mask.sum() / len(self.decoder)

    @staticmethod
    def formula(ops: Arithmetic, held: Held, ys: Array) -> Array:
        del ops
        decoder, mask = held["decoder"], held["mask"]
        off = (ys[1:] @ decoder.T - held["value"]) * mask
        return (off * off).sum() / mask.sum() / len(decoder)


def draw(
    source: Source,
    batch: int,
    *,
    state: int = 6,
    width: int = 32,
    layers: int = 1,
    observations: int = 2,
    features: int = 2,
    end: float = 2.0,
) -> Problem:
    """Draw series of `observations` times each, uniform in (0, end): batch * observations output times in all."""
    func = draw_field(source, state, width, layers)
    later, order = torch.sort(end * torch.rand(batch * observations, generator=source.generator, dtype=torch.float64))
    mask = torch.zeros(len(later), batch, 1, dtype=torch.float64)
    mask[torch.arange(len(later)), order % batch] = 1.0
    loss = MaskedMeanSquare(source.normal(features, state), source.normal(len(later), batch, features), mask)
    return Problem(func, source.normal(batch, state), torch.cat([torch.zeros_like(later[:1]), later]), loss)


IRREGULAR = Family("irregular", draw, formula)
