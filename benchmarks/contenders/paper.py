"""The paper's own code as a contender: package torch_symplectic_adjoint of its authors, which no index has.

Checked against version 0.0.1, https://github.com/tksmatsubara/symplectic-adjoint-method. Its names of methods are ours.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.cell import Cell
from benchmarks.contenders.contender import (
    CountedField,
    Observation,
    SolveRun,
    giving_up,
    not_installed,
    replay_of_equal_steps,
    shared_reason,
    unknown_gradient,
)
from benchmarks.problems import PROBLEMS, Problem

PACKAGE = "torch_symplectic_adjoint"

FUNCTIONS = {
    "symplectic": "odeint_symplectic_adjoint",
    "aca": "odeint_checkpoint",
    "baseline": "odeint_onecheckpoint",
    "continuous": "odeint_adjoint",
    "backprop": "odeint",
}

FIXED = ("euler", "midpoint", "rk4", "rk38")
# Its fehlberg2 takes the weights of the embedded formula for those of the error estimate, and so some 1 / rtol steps.
ADAPTIVE = ("adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8")

GIVES_UP = ("underflow in dt", "non-finite values in state")


@dataclass(frozen=True)
class Paper:
    name: str = "paper"
    gradients: tuple[str, ...] = tuple(FUNCTIONS)
    framework: Literal["torch"] = "torch"
    compiles: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell):
            return reason
        if cell.method not in FIXED + ADAPTIVE:
            return f"the paper's code has no method {cell.method!r}"
        if cell.steps is not None and cell.method in ADAPTIVE:
            return f"the paper's code runs {cell.method} with tolerances only, not with fixed steps"
        if cell.steps is not None and cell.steps % _outputs(cell):
            return f"the paper's code steps from output to output: steps must be a multiple of {_outputs(cell)}"
        return shared_reason(cell, adaptive=cell.method in ADAPTIVE)

    def missing(self) -> str | None:
        how = "get github.com/tksmatsubara/symplectic-adjoint-method and run: python -m pip install . in it"
        return not_installed(PACKAGE, how)

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        odeint = _odeint(cell)  # Imported by now, not while time and memory are measured.
        return SolveRun(problem, lambda: _solve(odeint, problem.func, problem, cell), _gives_up)

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        func = CountedField(problem.func)
        with giving_up(_gives_up):
            ys = _solve(_odeint(cell), func, problem, cell)
            loss = problem.loss(ys)
            func.backward_phase = True
            loss.backward()
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=func.counts(cell.steps, None if cell.steps is None else 0),
            replay=replay_of_equal_steps(cell, problem),
        )


def _solve(odeint: Callable[..., Tensor], func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
    t = problem.t.to(problem.y0.device)
    if cell.steps is None:
        return odeint(func, problem.y0, t, method=cell.method, rtol=cell.rtol, atol=cell.atol)
    grid = torch.linspace(float(t[0]), float(t[-1]), cell.steps + 1, dtype=t.dtype, device=t.device)
    ys = odeint(func, problem.y0, grid, method=cell.method)
    return ys[:: cell.steps // (len(t) - 1)]


def _outputs(cell: Cell) -> int:
    sizes: dict[str, Any] = {"outputs": 1, **PROBLEMS[cell.problem].sizes, **cell.sizes_dict}
    return sizes["outputs"]


def _odeint(cell: Cell) -> Callable[..., Tensor]:
    return getattr(importlib.import_module(PACKAGE), FUNCTIONS[cell.gradient])


def _gives_up(error: Exception) -> bool:
    return isinstance(error, AssertionError) and str(error).startswith(GIVES_UP)


PAPER = Paper()
