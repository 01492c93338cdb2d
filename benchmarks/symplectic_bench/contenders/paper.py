"""The paper's own code as a contender: its authors' package torch_symplectic_adjoint, which is not on PyPI.

Checked against version 0.0.1, https://github.com/tksmatsubara/symplectic-adjoint-method. Its method names are ours.
On a CUDA device it runs only euler and midpoint: for the other methods it moves a time to its neighbour with
torch.nextafter, and gives it a tensor of the CPU.
"""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor, nn

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

PACKAGE = "torch_symplectic_adjoint"

FUNCTIONS = {
    "symplectic": "odeint_symplectic_adjoint",
    "aca": "odeint_checkpoint",
    "baseline": "odeint_onecheckpoint",
    "continuous": "odeint_adjoint",
    "backprop": "odeint",
}

FIXED = ("euler", "midpoint", "rk4", "rk38")
# Its fehlberg2 uses the embedded formula's weights for the error estimate, and so takes some 1 / rtol steps.
ADAPTIVE = ("adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8")

GIVES_UP = ("underflow in dt", "non-finite values in state")


@dataclass(frozen=True)
class Paper(Peer):
    """The paper's own code, one function per gradient."""

    name: str = "paper"
    gradients: tuple[str, ...] = tuple(FUNCTIONS)

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in FIXED + ADAPTIVE:
            return f"the paper's code has no method {cell.method!r}"
        if cell.steps is not None and cell.method in ADAPTIVE:
            return f"the paper's code runs {cell.method} with tolerances only, not with fixed steps"
        return outputs_between_steps("the paper's code", cell) or shared_reason(cell, adaptive=cell.method in ADAPTIVE)

    def missing(self) -> str | None:
        how = "get github.com/tksmatsubara/symplectic-adjoint-method and run: python -m pip install . in it"
        return not_installed(PACKAGE, how)

    def load(self) -> ModuleType:
        return importlib.import_module(PACKAGE)

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        return _solve(getattr(self.load(), FUNCTIONS[cell.gradient]), func, problem, cell)

    def gives_up(self, error: Exception) -> bool:
        if isinstance(error, AssertionError):
            return str(error).startswith(GIVES_UP)
        return isinstance(error, RuntimeError) and _raised_in(error) == "_nextafter"

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness
        return replay_of_equal_steps(cell, problem)


def _solve(odeint: Callable[..., Tensor], func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
    if cell.steps is not None:
        return outputs_of(odeint(func, problem.y0, equal_grid(cell, problem), method=cell.method), problem)
    t = problem.t.to(problem.y0.device)
    return odeint(func, problem.y0, t, method=cell.method, rtol=cell.rtol, atol=cell.atol)


def _raised_in(error: Exception) -> str | None:
    """Return the name of the Python function in which the error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].name if frames else None


PAPER = Paper()
