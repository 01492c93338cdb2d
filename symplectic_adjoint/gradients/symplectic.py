"""The symplectic adjoint method: the exact gradient with one f on the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.gradients.checkpoints import Stages, StartsAndLastStages
from symplectic_adjoint.gradients.sweep import AddParams, sweep
from symplectic_adjoint.problem import Problem
from symplectic_adjoint.step import Step
from symplectic_adjoint.transpose import OutputCotangent, StepCotangents, transpose_step


@dataclass(frozen=True)
class Symplectic:
    """Matsubara, Miyatake and Yaguchi (NeurIPS 2021), Algorithms 1 and 2, in the form of transpose.py.

    keep="steps": the state at every step is kept and the stages of a step are evaluated again: memory
    (N + s) D + A, 2s - 1 f calls a step on the way back (s in the last step, whose stages are at hand
    in the first backward pass).
    keep="stages": every stage is kept: N s D + A, s f calls a step.
    """

    keep: Literal["steps", "stages"] = "steps"
    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.keep not in ("steps", "stages"):
            raise ValueError(f"Symplectic(keep=...) must be 'steps' or 'stages', got {self.keep!r}")

    def keeper(self, problem: Problem) -> StartsAndLastStages | Stages:
        return (Stages if self.keep == "stages" else StartsAndLastStages)(problem.times[-1])

    def backward(self, given: BackwardPass) -> Gradients:
        steps = _KeptStages(given) if self.keep == "stages" else _KeptStarts(given)
        with_time = given.t is not None

        def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], add_params: AddParams) -> StepCotangents:
            return transpose_step(given.field, steps.step(n), lam, outputs, add_params, with_time=with_time)

        return sweep(given, pull_back)


class _KeptStarts:
    """Steps from their starts, stages evaluated again; the last one from its kept stages."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._starts = (given.y0, *given.kept)

    def step(self, n: int) -> Step:
        problem, f, plan = self._given.problem, self._given.field, self._given.trajectory.plans[n]
        is_last = n == len(self._starts) - 1
        if is_last and self._given.once:
            step = problem.step(f, plan, self._starts[n], self._given.once)
            self._given.once.clear()
            return step
        step = problem.step(f, plan, self._starts[n], end=None if is_last else self._starts[n + 1])
        with torch.no_grad():
            step.evaluate(problem.tableau.stages - (0 if is_last else 1))
        return step


class _KeptStages:
    """Steps as they were: start and stages, kept one step after another."""

    def __init__(self, given: BackwardPass):
        self._given = given

    def step(self, n: int) -> Step:
        given = self._given
        plan, count = given.trajectory.plans[n], len(given.trajectory.plans)
        width = given.problem.tableau.stages  # a start and s - 1 stages, but y0 is kept elsewhere
        first = n * width - 1
        y = given.y0 if n == 0 else given.kept[first]
        if n == count - 1:
            return given.problem.step(given.field, plan, y, given.kept[first + 1 :])
        return given.problem.step(
            given.field, plan, y, given.kept[first + 1 : first + width], end=given.kept[first + width]
        )
