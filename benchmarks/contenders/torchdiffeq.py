"""torchdiffeq as a contender: backpropagation through its solver, and its continuous adjoint with either norm.

Checked against torchdiffeq 0.2.5.
"""

import functools
from dataclasses import dataclass
from types import ModuleType
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
    shared_reason,
    step_size,
    unknown_gradient,
)
from benchmarks.contenders.torchdiffeq_replay import Step, replay_adaptive, replay_fixed
from benchmarks.problems import Problem

THEIR_NAME = {"rk38": "rk4"}
"""Methods that are called something else there; every other name means the same method or is not there."""

GIVES_UP = ("underflow in dt", "non-finite values in state", "max_num_steps exceeded")


@dataclass(frozen=True)
class TorchDiffEq:
    name: str = "torchdiffeq"
    gradients: tuple[str, ...] = ("backprop", "continuous", "continuous-seminorm")
    framework: Literal["torch"] = "torch"
    compiles: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell):
            return reason
        if cell.method == "rk4":
            return "torchdiffeq's rk4 is the 3/8 rule: compare with our rk38"
        if self.missing():
            return None  # Its methods cannot be looked up, and missing() is reason enough.
        if _their_method(cell) not in _solvers():
            return f"torchdiffeq has no method {cell.method!r}"
        adaptive = _is_adaptive(cell)
        if cell.steps is not None and adaptive:
            return f"torchdiffeq runs {cell.method} with tolerances only, not with fixed steps"
        if cell.steps is not None and cell.gradient == "continuous-seminorm":
            return "a fixed grid estimates no error, so the seminorm changes nothing"
        return shared_reason(cell, adaptive)

    def missing(self) -> str | None:
        return not_installed("torchdiffeq", "python -m pip install torchdiffeq")

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        _torchdiffeq()  # Imported by now, not while time and memory are measured.
        return SolveRun(problem, lambda: _solve(problem.func, problem, cell), _gives_up)

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        adaptive = _is_adaptive(cell)
        func = AdaptiveWitness(problem.func) if adaptive else FixedWitness(problem.func)
        with giving_up(_gives_up):
            ys = _solve(func, problem, cell)
            loss = problem.loss(ys)
            func.backward_phase = True
            loss.backward()
        solver = _solvers()[_their_method(cell)]
        replay = (
            functools.partial(replay_adaptive, solver) if adaptive else functools.partial(replay_fixed, cell.method)
        )
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=func.counts(len(func.steps), func.rejected),
            replay=lambda twin: replay(func.steps, twin),
            steps=("torchdiffeq", *func.steps),
        )


class Witness(CountedField):
    """Records the forward solve's steps through the callbacks that torchdiffeq looks for on a field."""

    def __init__(self, func: nn.Module) -> None:
        super().__init__(func)
        self.steps: list[Step] = []
        self.rejected = 0

    def _record(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        del y
        if not self.backward_phase:
            self.steps.append((t.item(), dt.item()))


class AdaptiveWitness(Witness):
    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._record(t, y, dt)

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        del t, y, dt
        self.rejected += not self.backward_phase


class FixedWitness(Witness):
    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._record(t, y, dt)


def _solve(func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
    options = _options(problem, cell)
    accuracy = {} if cell.rtol is None else {"rtol": cell.rtol, "atol": cell.atol}
    common: dict[str, Any] = {"method": _their_method(cell), "options": options, **accuracy}
    t = problem.t.to(problem.y0.device)
    if cell.gradient == "backprop":
        return _torchdiffeq().odeint(func, problem.y0, t, **common)
    if cell.gradient == "continuous-seminorm":
        common["adjoint_options"] = {**options, "norm": "seminorm"}
    return _torchdiffeq().odeint_adjoint(func, problem.y0, t, **common)


def _options(problem: Problem, cell: Cell) -> dict[str, Any]:
    """The fixed grid, as a grid_constructor: their step_size may round to one step more."""
    if cell.steps is None:
        return {}
    h = step_size(cell, problem.t)
    # Outputs between grid points as ours: by the cubic, where linear interpolation is the default there.
    interpolation = {"interp": "cubic"} if len(problem.t) > 2 else {}
    return {"grid_constructor": lambda func, y0, t: _equal_steps(t, h), **interpolation}


def _equal_steps(t: Tensor, h: float) -> Tensor:
    """From t[0] to t[-1] in steps of about h; their adjoint asks for each interval of t by itself, backwards."""
    steps = max(1, round(abs(float(t[-1] - t[0])) / h))
    grid = torch.linspace(float(t[0]), float(t[-1]), steps + 1, dtype=t.dtype, device=t.device)
    grid[0], grid[-1] = t[0], t[-1]
    return grid


def _their_method(cell: Cell) -> str:
    return THEIR_NAME.get(cell.method, cell.method)


def _is_adaptive(cell: Cell) -> bool:
    return hasattr(_solvers()[_their_method(cell)], "tableau")


def _gives_up(error: Exception) -> bool:
    return isinstance(error, AssertionError) and str(error).startswith(GIVES_UP)


def _torchdiffeq() -> ModuleType:
    # Imported here because it takes half a second, with SciPy, that the cells of other contenders must not pay.
    import torchdiffeq

    return torchdiffeq


def _solvers() -> dict[str, Any]:
    _torchdiffeq()
    # Imported here for the same reason.
    from torchdiffeq._impl.odeint import SOLVERS

    return SOLVERS


TORCHDIFFEQ = TorchDiffEq()
