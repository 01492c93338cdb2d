"""The symplectic adjoint method: the exact gradient with one f on the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import (
    LastGraphs,
    RecomputedStarts,
    Stages,
    Starts,
    StartsAndLastStages,
)
from symplectic_adjoint.backward.held_graphs import first_step_on_graph
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.field import Linearization, Pull
from symplectic_adjoint.memory.storage import Offload, brought, check_offload, storage
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents, rows_of, transpose_step


@dataclass(frozen=True)
class Symplectic:
    """Matsubara, Miyatake and Yaguchi (NeurIPS 2021), Algorithms 1 and 2, in the form of transpose.py.

    keep="steps": the state at every step is kept and the stages of a step are evaluated again: memory
    (N + s) D + A, 2s - 1 f calls a step on the way back (s in the last step, whose stages are at hand
    in the first backward pass).
    keep="stages": every stage is kept: N s D + A, s f calls a step.
    graphs: of how many f calls, the last ones, the graph is held until the (first) backward pass: A + D each, and up to
    two f calls fewer (one with keep="stages"). math.inf is backpropagation, in time and in memory.
    offload: "cpu" holds what is kept in the host's memory, "disk" in files of `folder` (or of the system's folder for
    temporary files) that are gone with the process, however it ends.
    """

    keep: Literal["steps", "stages"] = "steps"
    graphs: float = 0
    offload: Offload = None
    folder: str | None = None
    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.keep not in ("steps", "stages"):
            raise ValueError(f"Symplectic(keep=...) must be 'steps' or 'stages', got {self.keep!r}")
        if isinstance(self.graphs, bool) or not isinstance(self.graphs, int | float) or not self.graphs >= 0:
            raise ValueError(f"Symplectic(graphs=...) must be a number of f calls, 0 or more, got {self.graphs!r}")
        check_offload(self.offload, self.folder)

    def keeper(self, given: ForwardPass) -> StartsAndLastStages | Stages | LastGraphs:
        there = storage(self.offload, self.folder)
        states = Stages(there) if self.keep == "stages" else StartsAndLastStages(there)
        if not self.graphs:
            return states
        problem = given.problem
        first = first_step_on_graph(self.graphs, problem.tableau.stages, problem.total_steps)
        return LastGraphs(states, self.graphs, first=first, with_time=given.with_time)

    def backward(self, given: BackwardPass) -> Gradients:
        return swept(given, KeptStages(given) if self.keep == "stages" else KeptStarts(given, Starts(given)))


def swept(given: BackwardPass, steps: "KeptStarts | KeptStages") -> Gradients:
    """The gradient from the steps, taken from the last one to the first."""
    with_time = given.t is not None

    def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], pull: Pull) -> StepCotangents:
        step, graphs = steps.step(n)
        if graphs is not None:
            graphs += [None] * (rows_of(step.tableau, outputs) - len(graphs))
        return transpose_step(given.field, step, lam, outputs, pull, with_time=with_time, graphs=graphs)

    return sweep(given, pull_back)


class _Backwards:
    """What is kept, taken step by step from the last one on: each step is asked for once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._is_last = True
        self._holds_output = given.trajectory.dense_outputs()
        self._end: Tensor | None = None
        """Where the step to come ends, if it holds an output, which may need f there."""

    def _step(self, n: int, start: Tensor, ks: Sequence[Tensor]) -> Step:
        end, self._end = self._end, start if n - 1 in self._holds_output else None
        self._is_last = False
        return self._given.problem.step(self._given.field, self._given.trajectory.plans[n], start, ks, end=end)

    def _graphs(self, n: int) -> list[Linearization | None] | None:
        """Those that are held of the step's stages, the last ones; each is given away."""
        held, found = self._given.graphs, dict[int, Linearization]()
        while held and held[-1].step == n:
            one = held.pop()
            found[one.stage] = one.graph
        return [found.get(i) for i in range(self._given.problem.tableau.stages)] if found else None


class KeptStarts(_Backwards):
    """Steps from their starts, stages evaluated again; those of the last one are still there in a first pass."""

    def __init__(self, given: BackwardPass, starts: Starts | RecomputedStarts):
        super().__init__(given)
        self._starts = starts

    def step(self, n: int) -> tuple[Step, list[Linearization | None] | None]:
        is_last, once, graphs = self._is_last, self._given.once, self._graphs(n)
        start, *known = self._starts.of(n)
        known, rows = once if is_last else known, self._given.problem.tableau.stages - (0 if is_last else 1)
        if graphs is not None and None not in graphs:
            known = [one.k for one in graphs if one is not None and one.k is not None]
        elif graphs is not None and n not in self._holds_output:
            rows = max(i for i, one in enumerate(graphs) if one is None)  # what that one's state is made of
        step = self._step(n, start, known)
        once.clear()
        with torch.no_grad():
            step.evaluate(rows)
        return step, graphs


class KeptStages(_Backwards):
    """Steps as they were: start and stages, kept one step after another."""

    def __init__(self, given: BackwardPass):
        super().__init__(given)
        self._kept, self._device = given.take_starts(), given.y0.device

    def step(self, n: int) -> tuple[Step, list[Linearization | None] | None]:
        stages = self._given.problem.tableau.stages - (0 if self._is_last else 1)
        first = len(self._kept) - stages
        ks = [brought(k, self._device) for k in self._kept[first:]]
        del self._kept[first:]
        return self._step(n, brought(self._kept.pop(), self._device), ks), self._graphs(n)
