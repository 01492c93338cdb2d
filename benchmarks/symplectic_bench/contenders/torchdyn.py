"""torchdyn as a contender: backpropagation through its solver, and its continuous adjoint.

Checked against torchdyn 1.0.6, https://github.com/DiffEqML/torchdyn, Apache licence 2.0. Its steps end at every output.
The adjoint always uses the seminorm. Its rk4 evaluates f at other times than the classic rule, so it is not given.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.observation import Replay, replay_of_equal_steps
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    outputs_between_steps,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import equal_grid, outputs_of
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell

FIXED = ("euler", "midpoint")
ADAPTIVE = ("dopri5", "tsit5")
"""Its methods, which have our names."""


@dataclass(frozen=True)
class TorchDyn(Peer):
    """torchdyn's odeint, and its ODEProblem with the adjoint."""

    name: str = "torchdyn"
    gradients: tuple[str, ...] = ("backprop", "continuous-seminorm")

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in FIXED + ADAPTIVE:
            return f"torchdyn has no method {cell.method!r}; it has {', '.join(FIXED + ADAPTIVE)}"
        if cell.steps is not None and cell.method in ADAPTIVE:
            return f"torchdyn runs {cell.method} with tolerances only, not with fixed steps"
        if cell.steps is not None and cell.gradient == "continuous-seminorm":
            return "torchdyn's adjoint takes one step from output to output over fixed steps"
        return outputs_between_steps("torchdyn", cell) or shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        return not_installed("torchdyn", "python -m pip install torchdyn")

    def load(self) -> ModuleType:
        return importlib.import_module("torchdyn.numerics")

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        if cell.steps is not None:
            grid = equal_grid(cell, problem).to(problem.y0)
            return outputs_of(self.load().odeint(func, problem.y0, grid, cell.method)[1], problem)
        how: dict[str, Any] = {"atol": cell.atol, "rtol": cell.rtol}
        t = problem.t.to(problem.y0)
        if cell.gradient == "backprop":
            return self.load().odeint(func, problem.y0, t, cell.method, **how)[1]
        how |= {f"{name}_adjoint": value for name, value in how.items()}
        # Imported here because it imports Lightning.
        whole = importlib.import_module("torchdyn.core").ODEProblem(func, cell.method, sensitivity="adjoint", **how)
        return whole.odeint(problem.y0, t)[1]

    def gives_up(self, error: Exception) -> bool:
        del error
        return False  # it has no limit on its steps

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness
        return replay_of_equal_steps(cell, problem)


TORCHDYN = TorchDyn()
