"""TorchDiffEqPack as a contender: its adaptive checkpoint adjoint (ACA) and its asynchronous leapfrog (MALI).

Checked against TorchDiffEqPack 1.0.1. It computes times in float32 whatever the dtype of the state, and returns only
the state at the last time. Its ACA raises a TypeError in the backward pass over fixed steps. MALI is itself a method,
of order 2.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.observation import Replay
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import step_size
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell

METHOD_NAMES = {"dopri5": "Dopri5", "bosh3": "RK23"}
"""Our method -> TorchDiffEqPack's name, for ACA."""

MOST_CALLS = 500_000


class ManyOutputs(RuntimeError):
    """An output lies between the first and the last time, and TorchDiffEqPack does not return such outputs."""


@dataclass(frozen=True)
class TorchDiffEqPack(Peer):
    """TorchDiffEqPack's ACA, with the methods that we have too, and its MALI."""

    name: str = "torchdiffeqpack"
    gradients: tuple[str, ...] = ("aca", "mali")
    remark: str = "it computes times in float32, whatever the dtype of the state"

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.gradient == "aca" and cell.steps is not None:
            return "TorchDiffEqPack's ACA fails in the backward pass over fixed steps"
        if cell.gradient == "aca" and cell.method not in METHOD_NAMES:
            return f"TorchDiffEqPack has no method {cell.method!r} with ACA"
        return shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        return not_installed("TorchDiffEqPack", 'python -m pip install ".[peers]"')

    def load(self) -> ModuleType:
        return importlib.import_module("TorchDiffEqPack")

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        return _solve(func, problem, cell)

    def gives_up(self, error: Exception) -> bool:
        return isinstance(error, ManyOutputs)

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness, problem, cell
        return "TorchDiffEqPack does not report its steps, which it rounds to float32"


def _solve(func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
    if len(problem.t) > 2:
        raise ManyOutputs("TorchDiffEqPack returns only the state at the last time")
    pack = importlib.import_module("TorchDiffEqPack")
    options: dict[str, Any] = {
        "t0": float(problem.t[0]),
        "t1": float(problem.t[-1]),
        "h": None if cell.steps is None else step_size(cell, problem.t),
        "rtol": cell.rtol,
        "atol": cell.atol,
        "print_neval": False,
        "neval_max": MOST_CALLS,
    }
    if cell.gradient == "aca":
        end = pack.odesolve_adjoint(func, problem.y0, options={**options, "method": METHOD_NAMES[cell.method]})
    else:
        method = "sym12async" if cell.steps is None else "fixedstep_sym12async"
        end = pack.odesolve_adjoint_sym12(func, problem.y0, options={**options, "method": method})
    return torch.stack((problem.y0, end))


TORCHDIFFEQPACK = TorchDiffEqPack()
