"""What is kept of each step for the way back, and the starts of the steps when they are asked for again."""

from collections import deque
from collections.abc import Sequence
from weakref import ref

import torch
from torch import Tensor

from symplectic_adjoint.field import Field, Linearization
from symplectic_adjoint.gradients.base import BackwardPass
from symplectic_adjoint.gradients.on_graph import OnGraph, StageGraph
from symplectic_adjoint.grid import StepPlan
from symplectic_adjoint.loop import Forget
from symplectic_adjoint.schedule import Levels, kept_states, stride
from symplectic_adjoint.step import RightHandSide, Step
from symplectic_adjoint.storage import AsMade, Storage, brought


class Nothing(Forget):
    """The start alone, which is y0."""

    kept: Sequence[Tensor] = ()
    steps: Sequence[int] = ()
    once: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()


class StepStarts(Forget):
    """The state at the start of every step but the first, which is y0: N - 1 states."""

    once: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()

    def __init__(self, storage: Storage | None = None) -> None:
        self.kept: list[Tensor] = []
        self.steps: list[int] = []
        self._storage = storage or AsMade()
        self._taken = 0

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        if self._taken:
            self._keep(self._taken, step.y)
        self._taken += 1

    def _keep(self, n: int, y: Tensor) -> None:
        del n
        self.kept.append(self._storage.put(y))


class StartsAndLastStages(StepStarts):
    """Step starts; and once, for they are needed first, the stages k_1 .. k_s of the last step."""

    def finish(self, step: Step) -> None:
        self.once = step.ks[: step.tableau.stages]


class Stages(StepStarts):
    """Step starts and k_1 .. k_{s-1} of every step (k_s too of the last): N s states, in the order of the steps."""

    def accept(self, plan: StepPlan, step: Step) -> None:
        super().accept(plan, step)
        self.kept.extend(map(self._storage.put, step.ks[: step.tableau.stages - 1]))

    def finish(self, step: Step) -> None:
        s = step.tableau.stages
        self.kept.extend(map(self._storage.put, step.ks[s - 1 : s]))


class SomeStarts(StartsAndLastStages):
    """At most `room` of the step starts, and the last one; in `steps` which: those that make the way back cheapest.

    total: the number of steps, None where it is not known beforehand.
    """

    def __init__(self, room: int, total: int | None, storage: Storage):
        super().__init__(storage)
        self._levels = Levels(room) if total is None else None
        self._planned = set() if total is None else set(kept_states(total, room))
        self._newest: tuple[int, Tensor] | None = None

    def _keep(self, n: int, y: Tensor) -> None:
        before, self._newest = self._newest, (n, y)
        if before is None:
            return
        if self._levels is not None:
            place = self._levels.replaced()
            if place is not None:
                del self.kept[place], self.steps[place]
        elif before[0] not in self._planned:
            return
        self.steps.append(before[0])
        self.kept.append(self._storage.put(before[1]))

    def finish(self, step: Step) -> None:
        super().finish(step)
        if self._newest is not None:  # the first that is needed, and freed as soon as its step is reversed
            self.steps.append(self._newest[0])
            self.kept.append(self._newest[1])


class LastGraphs(Forget):
    """What `states` keeps, and the graphs of the last `number` f calls of the steps that were accepted."""

    steps: Sequence[int] = ()

    def __init__(self, states: StepStarts, number: float, *, with_time: bool):
        self._states, self._number, self._with_time = states, number, with_time
        self.graphs: deque[StageGraph] = deque()
        self._fresh: list[tuple[ref[Tensor], Linearization]] = []
        """Of no accepted step yet. A rejected step's values are gone with it."""
        self._taken = 0

    @property
    def kept(self) -> Sequence[Tensor]:
        return self._states.kept

    @property
    def once(self) -> Sequence[Tensor]:
        return self._states.once

    def around(self, f: Field) -> RightHandSide:
        return OnGraph(f, self._note, with_time=self._with_time)

    def accept(self, plan: StepPlan, step: Step) -> None:
        self._states.accept(plan, step)
        stages = {id(k): i for i, k in enumerate(step.ks[: step.tableau.stages])}
        fresh, self._fresh = self._fresh, []
        for value, graph in fresh:
            k = value()
            if k is not None and id(k) in stages:
                graph.k = k  # for the times' cotangents, and for dense output
                self.graphs.append(StageGraph(graph, self._taken, stages[id(k)]))
            else:
                self._fresh.append((value, graph))
        self._taken += 1

    def finish(self, step: Step) -> None:
        self._states.finish(step)
        self._fresh.clear()

    def _note(self, graph: Linearization, k: Tensor) -> None:
        self._fresh = [(value, one) for value, one in self._fresh if value() is not None]
        self._fresh.append((ref(k), graph))
        if len(self.graphs) + len(self._fresh) > self._number:
            if self.graphs:
                self.graphs.popleft()
            else:
                del self._fresh[0]


class Starts:
    """The start of each step, from the last to the first. All of them were kept."""

    def __init__(self, given: BackwardPass):
        self._kept, self._device = given.take_starts(), given.y0.device

    def of(self, n: int) -> Tensor:
        """y_n; asked for once, n falling."""
        del n
        return brought(self._kept.pop(), self._device)


class RetakenStarts:
    """The start of each step, where `room` of them may be held at a time: others are computed again on the way."""

    def __init__(self, given: BackwardPass, room: int, storage: Storage):
        self._given, self._room, self._storage = given, room, storage
        self._device = given.y0.device
        self._held = list(zip((0, *given.steps), given.take_starts(), strict=True))

    def of(self, n: int) -> Tensor:
        """y_n; asked for once, n falling."""
        while (at := self._held[-1][0]) != n:
            room = self._room + 1 - len(self._held)  # y0 takes none
            to = at + stride(n - at + 1, room)
            y = self._taken(at, to)
            if to == n:
                return y
            self._held.append((to, self._storage.put(y)))
        return brought(self._held.pop()[1], self._device)

    @torch.no_grad()
    def _taken(self, at: int, to: int) -> Tensor:
        problem, plans = self._given.problem, self._given.trajectory.plans
        y, k1 = brought(self._held[-1][1], self._device), None
        for plan in plans[at:to]:
            step = problem.step(self._given.field, plan, y, () if k1 is None else (k1,))
            y, k1 = step.end(), step.end_slope()
        return y
