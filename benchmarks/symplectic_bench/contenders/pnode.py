"""PNODE as a contender: PETSc's time steppers and their discrete adjoint (Zhang and Zhao 2022, arXiv:2206.01298).

Written for version 1.1, https://github.com/caidao22/pnode, MIT licence; not yet run with PETSc itself. It keeps the
stages of every step, so its gradient is called stages here. Implicit steps are solved by PETSc's Newton method and
GMRES, without a Jacobian, at PETSc's default tolerances. On the CPU, in the precision that PETSc was built with.
"""

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.observation import Replay
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    outputs_between_steps,
    several_fields,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import equal_grid, outputs_of
from symplectic_bench.problems import PROBLEMS, Problem
from symplectic_bench.spec.cell import Cell

EXPLICIT = {"euler": "euler", "heun2": "midpoint", "rk4": "rk4", "dopri5": "dopri5_fixed"}
"""Our method -> PNODE's name. What it calls midpoint is PETSc's 2a, Heun's method."""

IMPLICIT = {"implicit_euler": "beuler", "crank_nicolson": "cn"}

OPTIONS = ("-ts_adapt_type", "none", "-ts_trajectory_type", "memory", "-ts_trajectory_solution_only", "0")
"""PETSc's, which it reads once a process: equal steps, whose stages are kept in memory."""

HOW = 'build PETSC with --with-petsc4py, then: python -m pip install "git+https://github.com/caidao22/pnode"'


@dataclass(frozen=True)
class Pnode(Peer):
    """PNODE's odeint_adjoint."""

    name: str = "pnode"
    gradients: tuple[str, ...] = ("stages",)

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell) or several_fields(cell):
            return reason
        if cell.method not in {**EXPLICIT, **IMPLICIT}:
            return f"PNODE has no method {cell.method!r}; it has {', '.join({**EXPLICIT, **IMPLICIT})}"
        if cell.device != "cpu":
            return "PNODE is run on the CPU here"
        if (family := PROBLEMS.get(cell.problem)) is not None and family.jumps:
            return f"the field of {cell.problem} jumps, and PNODE takes equal steps"
        return outputs_between_steps("PNODE", cell) or shared_reason(cell, adaptive=False)

    def missing(self) -> str | None:
        return not_installed("petsc4py", HOW) or not_installed("pnode", HOW)

    def load(self) -> ModuleType:
        return _petsc_adjoint()

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        ode, grid = self.load().ODEPetsc(), equal_grid(cell, problem)
        how: dict[str, Any] = {"method": {**EXPLICIT, **IMPLICIT}[cell.method]}
        how |= {"implicit_form": cell.method in IMPLICIT, "step_size": float(grid[1] - grid[0])}
        ode.setupTS(problem.y0.detach(), NumbersAsTimes(func, problem.y0), **how)
        return outputs_of(ode.odeint_adjoint(problem.y0, grid), problem)

    def gives_up(self, error: Exception) -> bool:
        return type(error).__module__.partition(".")[0] == "petsc4py"

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness, problem
        return f"{cell.contender} solves implicit steps to tolerances of its own"


class NumbersAsTimes(nn.Module):
    """A field for PETSc, which calls it with plain numbers as times and with states of one shape."""

    def __init__(self, func: nn.Module, y0: Tensor) -> None:
        super().__init__()
        self.func, self._shape = func, y0.shape

    def forward(self, t: float, y: Tensor) -> Tensor:
        return self.func(torch.as_tensor(t, dtype=y.dtype), y.view(self._shape))


@functools.cache
def _petsc_adjoint() -> ModuleType:
    """Import the package, which imports PETSc: that must have its options before."""
    importlib.import_module("petsc4py").init(["symplectic-bench", *OPTIONS])  # after the name of a program
    return importlib.import_module("pnode.petsc_adjoint")


PNODE = Pnode()
