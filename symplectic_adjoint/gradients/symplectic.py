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
        del problem
        return Stages() if self.keep == "stages" else StartsAndLastStages()

    def backward(self, given: BackwardPass) -> Gradients:
        steps = _KeptStages(given) if self.keep == "stages" else _KeptStarts(given)
        with_time = given.t is not None

        def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], add_params: AddParams) -> StepCotangents:
            return transpose_step(given.field, steps.step(n), lam, outputs, add_params, with_time=with_time)

        return sweep(given, pull_back)


class _KeptStarts:
    """Steps from their starts, stages evaluated again; the last one from its kept stages. Last one first, each once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._starts = given.take_starts()
        self._end: Tensor | None = None

    def step(self, n: int) -> Step:
        problem, f, plan = self._given.problem, self._given.field, self._given.trajectory.plans[n]
        is_last, once = self._end is None, self._given.once
        start, end = self._starts.pop(), self._end
        self._end = start
        if is_last and once:
            step = problem.step(f, plan, start, once)
            once.clear()
            return step
        step = problem.step(f, plan, start, end=end)
        with torch.no_grad():
            step.evaluate(problem.tableau.stages - (0 if is_last else 1))
        return step


class _KeptStages:
    """Steps as they were: start and stages, kept one step after another. Last one first, each once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._kept = given.take_starts()
        self._end: Tensor | None = None

    def step(self, n: int) -> Step:
        problem, plan = self._given.problem, self._given.trajectory.plans[n]
        stages = problem.tableau.stages - (0 if self._end is None else 1)
        ks = self._kept[len(self._kept) - stages :]
        del self._kept[len(self._kept) - stages :]
        start, end = self._kept.pop(), self._end
        self._end = start
        return problem.step(self._given.field, plan, start, ks, end=end)
