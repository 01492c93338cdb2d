"""The cotangents of the dense outputs of a step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.steps.cotangent_sums import Weighted
from symplectic_adjoint.steps.dense_outputs import FEWEST_AT_ONCE, most_at_once, transpose_outputs


@dataclass(frozen=True)
class OutputCotangent:
    """The cotangent mu = dL/dy(sigma) of output j, a dense output of the step."""

    j: int
    sigma: float
    mu: Tensor


class OutputCotangents:
    """The cotangents of the outputs j in `numbers`, which ascend. sigmas and grad_ys have entries for all outputs."""

    def __init__(self, numbers: Sequence[int], sigmas: Sequence[float], grad_ys: Tensor):
        self._numbers, self._sigmas, self._grad_ys = numbers, sigmas, grad_ys

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[OutputCotangent]:
        return (OutputCotangent(j, self._sigmas[j], self._grad_ys[j]) for j in self._numbers)

    @property
    def most_at_once(self) -> int:
        """How many mus are summed at once; 1 if they are few, or must be summed one by one."""
        return most_at_once(self._grad_ys[0]) if len(self) >= FEWEST_AT_ONCE else 1

    def stacked(self, most: int) -> Iterator[tuple[list[float], Tensor]]:
        """Yield up to `most` outputs at a time: their sigmas, and their mus, stacked."""
        for first in range(0, len(self), most):
            numbers = self._numbers[first : first + most]
            start, end = numbers[0], numbers[-1] + 1
            adjacent = end - start == len(numbers)
            mus = self._grad_ys[start:end] if adjacent else torch.stack([self._grad_ys[j] for j in numbers])
            yield [self._sigmas[j] for j in numbers], mus


NO_OUTPUTS = OutputCotangents((), (), torch.empty(0, device="cpu"))


def weighted_cotangents(interpolant: Interpolant, outputs: OutputCotangents, *, together: bool) -> list[Weighted]:
    """Return what the outputs add to the sums of a step's transpose.

    That is each mu with its b_i(sigma) or, if `together` allows it and they are many, V_i for each row i, and the sum
    of all mu.
    """
    if not together or (most := outputs.most_at_once) == 1:
        return [Weighted(interpolant.weights_at(o.sigma), o.mu, of_y=True) for o in outputs]
    none = (0.0,) * len(interpolant.weights)
    units = [(*none[:i], 1.0, *none[i + 1 :]) for i in interpolant.used_rows]
    totals: list[Tensor] = []
    for sigmas, mus in outputs.stacked(most):
        for i, V in enumerate(transpose_outputs(interpolant, sigmas, mus)):
            if i == len(totals):
                totals.append(V)
            else:
                totals[i] += V
    weighted = [Weighted(unit, V, of_y=False) for unit, V in zip(units, totals[:-1], strict=True)]
    return [*weighted, Weighted(none, totals[-1], of_y=True)]
