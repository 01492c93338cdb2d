"""The solver that a network calls during training: one contender, which counts the calls of its solves."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.contenders.contender import Trainer
from symplectic_bench.contenders.counts import Counts, total
from symplectic_bench.problems.problem import Loss, Problem
from symplectic_bench.spec.cell import Cell


class Integrator:
    """One contender's `integrate` with a cell's settings. It records the counts of its solves."""

    def __init__(self, contender: Trainer, cell: Cell) -> None:
        self._contender, self._cell = contender, cell
        self._recounts: list[Callable[[], Counts]] = []

    def __call__(self, func: nn.Module, y0: Tensor, t: Tensor, /) -> Tensor:
        solved = self._contender.integrate(Problem(func, y0, t, Loss()), self._cell)
        self._recounts.append(solved.recount)
        return solved.ys

    def take_counts(self) -> Counts:
        """Return the total counts of all solves since the last call, including their backward passes so far."""
        recounts, self._recounts = self._recounts, []
        return total([recount() for recount in recounts])


def forward_only(cell: Cell) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return an `integrate` for evaluation, with the cell's method and accuracy, the same for every contender."""

    def integrate(func: nn.Module, y0: Tensor, t: Tensor, /) -> Tensor:
        if cell.steps is None:
            ys = odeint(func, y0, t, method=cell.method, rtol=cell.rtol or 0.0, atol=cell.atol or 0.0)
        else:
            step = float(t[-1] - t[0]) / cell.steps
            ys = odeint(func, y0, t, method=cell.method, options={"step_size": step})
        assert isinstance(ys, Tensor)
        return ys

    return torch.no_grad()(integrate)
