"""The symplectic adjoint method: the exact gradient with one f on the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from symplectic_adjoint.field import Pull
from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.gradients.checkpoints import Stages, StartsAndLastStages
from symplectic_adjoint.gradients.sweep import sweep
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

        def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], pull: Pull) -> StepCotangents:
            return transpose_step(given.field, steps.step(n), lam, outputs, pull, with_time=with_time)

        return sweep(given, pull_back)


class _Backwards:
    """What is kept, taken step by step from the last one on: each step is asked for once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._kept = given.take_starts()
        self._is_last = True
        self._holds_output = given.trajectory.dense_outputs()
        self._end: Tensor | None = None
        """Where the step to come ends, if it holds an output, which may need f there."""

    def _step(self, n: int, start: Tensor, ks: Sequence[Tensor]) -> Step:
        end, self._end = self._end, start if n - 1 in self._holds_output else None
        self._is_last = False
        return self._given.problem.step(self._given.field, self._given.trajectory.plans[n], start, ks, end=end)


class _KeptStarts(_Backwards):
    """Steps from their starts, stages evaluated again; those of the last one are still there in a first pass."""

    def step(self, n: int) -> Step:
        is_last, once = self._is_last, self._given.once
        step = self._step(n, self._kept.pop(), once if is_last else ())
        once.clear()
        with torch.no_grad():
            step.evaluate(self._given.problem.tableau.stages - (0 if is_last else 1))
        return step


class _KeptStages(_Backwards):
    """Steps as they were: start and stages, kept one step after another."""

    def step(self, n: int) -> Step:
        stages = self._given.problem.tableau.stages - (0 if self._is_last else 1)
        first = len(self._kept) - stages
        ks = self._kept[first:]
        del self._kept[first:]
        return self._step(n, self._kept.pop(), ks)
