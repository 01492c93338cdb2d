"""torchode as a contender: backpropagation through its solver.

Checked against torchode 1.0.1. It controls each sample's step separately: f is called for the whole batch, each sample
at its own time, until the last sample reaches the end. Step sizes are constants of its graph here, as for the other
contenders; by default it differentiates them too, which takes longer.
"""

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.contender import Contender
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.gradient_run import SolveRun, giving_up
from symplectic_bench.contenders.observation import Observation, replay_of_equal_steps
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    several_fields,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import step_size
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell

METHOD_CLASSES = {"euler": "Euler", "heun2": "Heun", "adaptive_heun": "Heun", "dopri5": "Dopri5", "tsit5": "Tsit5"}
"""Our method -> torchode's class. heun2 is adaptive_heun without its error estimate."""


class StatusError(RuntimeError):
    """The status of a failed solve, which torchode returns instead of raising."""


@dataclass(frozen=True)
class TorchOde:
    """torchode's AutoDiffAdjoint."""

    name: str = "torchode"
    gradients: tuple[str, ...] = ("backprop",)
    framework: Literal["torch"] = "torch"
    compiles: bool = False
    captures: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in METHOD_CLASSES:
            return f"torchode has no method {cell.method!r}"
        return several_fields(cell) or shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        return not_installed("torchode", 'python -m pip install ".[peers]"')

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        importlib.import_module("torchode")  # now rather than while time and memory are measured
        return SolveRun(problem, lambda: _states(_solve(problem.func, problem, cell)), _gives_up)

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        func = CountedField(problem.func)
        with giving_up(_gives_up):
            solution = _solve(func, problem, cell)
            ys = _states(solution)
            loss = problem.loss(ys)
            func.backward_phase = True
            loss.backward()
        taken, accepted = solution.stats["n_steps"], solution.stats["n_accepted"]
        slowest = int(taken.argmax())  # the others wait for it
        steps = int(accepted[slowest]), int(taken[slowest] - accepted[slowest])
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=func.counts(*steps),
            replay=replay_of_equal_steps(cell, problem),
        )


class OwnTimes(nn.Module):
    """A field for torchode, which calls it with float64 times (batch,), one per sample.

    The wrapped field gets times (batch, 1) in the state's dtype.
    """

    def __init__(self, func: nn.Module) -> None:
        super().__init__()
        self.func = func

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.func(t[:, None].to(y.dtype), y)


def _solve(func: nn.Module, problem: Problem, cell: Cell) -> Any:
    torchode, y0 = importlib.import_module("torchode"), problem.y0
    assert y0.ndim == 2, "states are (batch, features)"
    t = problem.t.to(y0.device).expand(len(y0), -1)
    term = torchode.ODETerm(OwnTimes(func), with_stats=False)
    method = getattr(torchode, METHOD_CLASSES[cell.method])(term=term)
    if cell.steps is None:
        controller, h = torchode.IntegralController(cell.atol, cell.rtol, term=term).to(y0.device), None
    else:
        # Increased by the most that rounding can lose over all steps, or a step of 1e-16 would be left at the end.
        exact = step_size(cell, problem.t) * (1 + cell.steps * torch.finfo(t.dtype).eps)
        controller, h = torchode.FixedStepController(), torch.full_like(t[:, 0], exact)
    solver = torchode.AutoDiffAdjoint(method, controller, backprop_through_step_size_control=False)
    solution = solver.solve(torchode.InitialValueProblem(y0, t[:, 0], t[:, -1], t), dt0=h)
    failed = solution.status[solution.status != torchode.Status.SUCCESS.value]
    if len(failed):
        raise StatusError(torchode.Status(int(failed[0])).name)
    return solution


def _states(solution: Any) -> Tensor:
    """Return ys as (len(t), batch, dim), the shape that the loss takes."""
    return solution.ys.transpose(0, 1)


def _gives_up(error: Exception) -> bool:
    return isinstance(error, StatusError)


TORCHODE: Contender = TorchOde()
