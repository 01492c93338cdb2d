"""What is kept of each step for the way back, and the starts of the steps when they are asked for again."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.backward.held_graphs import FreshGraphs, OnGraph, StageGraph
from symplectic_adjoint.backward.schedule import OnlineCheckpoints, kept_states, stride
from symplectic_adjoint.backward.strategy import BackwardPass
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.memory.storage import AsMade, Storage, brought
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class Nothing(KeepNothing):
    """The start alone, which is y0."""

    kept: Sequence[Tensor] = ()
    steps: Sequence[int] = ()
    once: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()
    choice: None = None


class StepStarts(KeepNothing):
    """The state at the start of every step but the first, which is y0: N - 1 states."""

    once: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()
    choice: None = None

    def __init__(self, storage: Storage | None = None) -> None:
        self.kept: list[Tensor] = []
        self.steps: list[int] = []
        self._storage = storage or AsMade()
        self._accepted = 0

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        if self._accepted:
            self._keep(self._accepted, step.y)
        self._accepted += 1

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
        self._room = room
        self._levels = OnlineCheckpoints(room) if total is None else None
        self._plans_all = total is not None and total - 1 <= room
        self._planned = set() if total is None else set(kept_states(total, room))
        self._newest: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.kept) + (self._newest is not None)

    @property
    def all_kept(self) -> bool:
        """Whether no start has been left out, nor will be before the next step."""
        return len(self.kept) < self._room if self._levels is not None else self._plans_all

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
            self._newest = None


class LastGraphs(KeepNothing):
    """What `states` keeps, and the graphs of the last `number` f calls of the steps that were accepted.

    first: the step from which on calls are on a graph.
    """

    steps: Sequence[int] = ()
    choice: None = None

    def __init__(self, states: StepStarts, number: float, *, first: int, with_time: bool):
        self._states, self._number, self._first, self._with_time = states, number, first, with_time
        self.graphs: deque[StageGraph] = deque()
        self._fresh = FreshGraphs()
        self._accepted = 0

    @property
    def kept(self) -> Sequence[Tensor]:
        return self._states.kept

    @property
    def once(self) -> Sequence[Tensor]:
        return self._states.once

    def wrap(self, f: Field) -> RightHandSide:
        return OnGraph(f, self._note, with_time=self._with_time, wanted=lambda: self._accepted >= self._first)

    def accept(self, plan: StepPlan, step: Step) -> None:
        self._states.accept(plan, step)
        self.graphs += self._fresh.of_step(self._accepted, step)
        self._accepted += 1

    def finish(self, step: Step) -> None:
        self._states.finish(step)
        self._fresh.clear()

    def _note(self, graph: Linearization, k: Tensor) -> None:
        self._fresh.note(graph, k)
        if len(self.graphs) + len(self._fresh) > self._number:
            if self.graphs:
                self.graphs.popleft()
            else:
                self._fresh.drop_oldest()


class Starts:
    """The start of each step, from the last to the first. All of them were kept."""

    def __init__(self, given: BackwardPass):
        self._kept, self._device = given.take_starts(), given.y0.device

    def of(self, n: int) -> list[Tensor]:
        """y_n; asked for once, n falling."""
        del n
        return [brought(self._kept.pop(), self._device)]


class RecomputedStarts:
    """The start of each step, where `room` of them may be held at a time: others are computed again on the way.

    A start that was kept comes with the stages that were kept of its step.
    """

    def __init__(self, given: BackwardPass, room: int, storage: Storage):
        self._given, self._room, self._storage = given, room, storage
        self._device = given.y0.device
        self._held: list[tuple[int, list[Tensor]]] = []
        for n, x in zip((0, *given.steps), given.take_starts(), strict=True):
            if self._held and self._held[-1][0] == n:
                self._held[-1][1].append(x)
            else:
                self._held.append((n, [x]))

    def of(self, n: int) -> list[Tensor]:
        """y_n, and those of k_1 .. that were kept with it; asked for once, n falling."""
        while (at := self._held[-1][0]) != n:
            room = self._room + 1 - len(self._held)  # y0 takes none
            to = at + stride(n - at + 1, room)
            y = self._recomputed(at, to)
            if to == n:
                return [y]
            self._held.append((to, [self._storage.put(y)]))
        return [brought(x, self._device) for x in self._held.pop()[1]]

    @torch.no_grad()
    def _recomputed(self, at: int, to: int) -> Tensor:
        problem, plans = self._given.problem, self._given.trajectory.plans
        y, k1 = brought(self._held[-1][1][0], self._device), None
        for plan in plans[at:to]:
            step = problem.step(self._given.field, plan, y, () if k1 is None else (k1,))
            y, k1 = step.end(), step.end_slope()
        return y
