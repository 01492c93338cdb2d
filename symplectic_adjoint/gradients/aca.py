"""Adaptive checkpoint adjoint: one step on the graph at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field import Field, Linearization, Pull, Time
from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.gradients.checkpoints import StepStarts
from symplectic_adjoint.gradients.sweep import sweep
from symplectic_adjoint.problem import Problem
from symplectic_adjoint.transpose import OutputCotangent, StepCotangents, rows_of, transpose_step


@dataclass(frozen=True)
class Aca:
    """Keeps the state at every step; each step is taken again, its f calls on the graph, and transposed.

    Memory N D + s A, s f calls a step on the way back. Zhuang et al. (ICML 2020, arXiv:2006.02493), without the
    step size search and the repeated step of the published code. What is on the graph are the f calls alone, each from
    a state of its own: the sums that connect them are transposed by hand, and need no cotangent a stage in advance.
    """

    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def keeper(self, problem: Problem) -> StepStarts:
        del problem
        return StepStarts()

    def backward(self, given: BackwardPass) -> Gradients:
        starts, with_time = given.take_starts(), given.t is not None
        problem, plans = given.problem, given.trajectory.plans

        def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], pull: Pull) -> StepCotangents:
            f = _OnGraph(given.field, with_time)
            step = problem.step(f, plans[n], starts.pop())
            with torch.no_grad():
                step.evaluate(rows_of(problem.tableau, outputs))
            return transpose_step(given.field, step, lam, outputs, pull, with_time=with_time, graphs=f.graphs)

        return sweep(given, pull_back)


class _OnGraph:
    """f, every call of which stays on a graph of its own."""

    code: None = None

    def __init__(self, f: Field, with_time: bool):
        self.graphs: list[Linearization] = []
        self.f_calls = 0
        self._f, self._with_time = f, with_time

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        one = self._f.linearize(t, y, with_time=self._with_time, with_value=True)
        k = one.k
        assert k is not None
        if not self._with_time:
            one.k = None  # it is needed as long as the step is taken, no longer
        self.graphs.append(one)
        return k

    def beside(self, t: Time, direction: float) -> Time:
        return self._f.beside(t, direction)

    def restart(self) -> None:
        pass

    def place(self, index: int) -> Place:
        return self._f.place(index)
