"""torchdiffeq as a contender: backpropagation through its solver, and its continuous adjoint with either norm.

Checked against torchdiffeq 0.2.5.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.observation import Replay
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import step_size
from symplectic_bench.contenders.torchdiffeq_replay import Step, replay_adaptive, replay_fixed
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell

THEIR_NAME = {"rk38": "rk4"}
"""Our method -> torchdiffeq's name, if they differ. Any other name means the same method or is unknown there."""

GIVES_UP = ("underflow in dt", "non-finite values in state", "max_num_steps exceeded")


@dataclass(frozen=True)
class TorchDiffEq(Peer):
    """torchdiffeq's odeint, and its odeint_adjoint with the default norm and the seminorm."""

    name: str = "torchdiffeq"
    gradients: tuple[str, ...] = ("backprop", "continuous", "continuous-seminorm")

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method == "rk4":
            return "torchdiffeq's rk4 is the 3/8 rule: compare with our rk38"
        if self.missing():
            return None  # its methods cannot be looked up, and missing() gives the reason
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

    def load(self) -> ModuleType:
        return _torchdiffeq()

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        return _solve(func, problem, cell)

    def gives_up(self, error: Exception) -> bool:
        return isinstance(error, AssertionError) and str(error).startswith(GIVES_UP)

    def witness(self, func: nn.Module, cell: Cell) -> "Witness":
        return AdaptiveWitness(func) if _is_adaptive(cell) else FixedWitness(func)

    def recount(self, witness: "Witness", cell: Cell) -> Counts:
        del cell
        return replace(
            witness.counts(len(witness.steps), witness.rejected), steps_backward=witness.steps_backward or None
        )

    def replay(self, witness: "Witness", problem: Problem, cell: Cell) -> Replay:
        del problem
        solver, steps = _solvers()[_their_method(cell)], witness.steps
        if _is_adaptive(cell):
            return lambda twin: replay_adaptive(solver, steps, twin)
        return lambda twin: replay_fixed(cell.method, steps, twin)

    def steps(self, witness: "Witness") -> Hashable:
        return ("torchdiffeq", *witness.steps)


class Witness(CountedField):
    """Records the forward solve's steps through the callbacks that torchdiffeq looks for on a field."""

    def __init__(self, func: nn.Module) -> None:
        super().__init__(func)
        self.steps: list[Step] = []
        self.rejected = 0
        self.steps_backward = 0

    def _record(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        del y
        if not self.backward_phase:
            self.steps.append((t.item(), dt.item()))

    def _count_backward(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        del t, y, dt
        self.steps_backward += 1


class AdaptiveWitness(Witness):
    """The callbacks of adaptive solvers."""

    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._record(t, y, dt)

    def callback_reject_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        del t, y, dt
        self.rejected += not self.backward_phase

    def callback_accept_step_adjoint(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._count_backward(t, y, dt)


class FixedWitness(Witness):
    """The callbacks of fixed-step solvers."""

    def callback_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._record(t, y, dt)

    def callback_step_adjoint(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        self._count_backward(t, y, dt)


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
    """Return the fixed grid as a grid_constructor, because their step_size may round to one step too many."""
    if cell.steps is None:
        return {}
    h = step_size(cell, problem.t)
    # Interpolate outputs between grid points by the cubic, as ours does; their default is linear.
    interpolation = {"interp": "cubic"} if len(problem.t) > 2 else {}
    return {"grid_constructor": lambda func, y0, t: _equal_steps(t, h), **interpolation}


def _equal_steps(t: Tensor, h: float) -> Tensor:
    """Return a grid from t[0] to t[-1] in steps of about h.

    Their adjoint requests each interval of t separately, backwards in time.
    """
    steps = max(1, round(abs(float(t[-1] - t[0])) / h))
    grid = torch.linspace(float(t[0]), float(t[-1]), steps + 1, dtype=t.dtype, device=t.device)
    grid[0], grid[-1] = t[0], t[-1]
    return grid


def _their_method(cell: Cell) -> str:
    return THEIR_NAME.get(cell.method, cell.method)


def _is_adaptive(cell: Cell) -> bool:
    return hasattr(_solvers()[_their_method(cell)], "tableau")


def _torchdiffeq() -> ModuleType:
    # Imported here because it takes half a second (with SciPy), which must not be charged to other contenders.
    import torchdiffeq

    return torchdiffeq


def _solvers() -> dict[str, Any]:
    _torchdiffeq()
    # Imported here for the same reason.
    from torchdiffeq._impl.odeint import SOLVERS

    return SOLVERS


TORCHDIFFEQ = TorchDiffEq()
