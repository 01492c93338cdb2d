"""zuko as a contender: the solver of its continuous normalizing flows, with the adjoint that it calls ACA.

Checked against zuko 1.6.0, https://github.com/probabilists/zuko, MIT licence. It has dopri5 with the error measured in
the largest norm, and starts with the whole interval as its first step. Backwards it takes one step of dopri5 of the
adjoint equation for each step forward, from the state kept at its end: that is the continuous adjoint on the forward
grid, exact only as the steps tend to 0, so it is called continuous here. It returns the last state, so outputs are
solved in turn. Its times have the dtype of the state.
"""

import importlib
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.observation import Replay
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell


@dataclass(frozen=True)
class Zuko(Peer):
    """zuko.utils.odeint."""

    name: str = "zuko"
    gradients: tuple[str, ...] = ("continuous",)

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method != "dopri5":
            return f"zuko has no method {cell.method!r}; it has dopri5"
        if cell.steps is not None:
            return "zuko runs dopri5 with tolerances only, not with fixed steps"
        return shared_reason(cell, adaptive=True)

    def missing(self) -> str | None:
        return not_installed("zuko", "python -m pip install zuko")

    def load(self) -> ModuleType:
        return importlib.import_module("zuko.utils")

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        assert cell.rtol is not None and cell.atol is not None, "fixed steps are declined"
        odeint, ys = self.load().odeint, [problem.y0]
        phi = (*func.parameters(), *problem.unlisted)
        for start, end in pairwise(problem.t.tolist()):
            ys.append(odeint(func, ys[-1], start, end, phi=phi, atol=cell.atol, rtol=cell.rtol))
        return torch.stack(ys)

    def gives_up(self, error: Exception) -> bool:
        del error
        return False  # it has no limit on its steps

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness, problem, cell
        return "zuko does not report its steps"


ZUKO = Zuko()
