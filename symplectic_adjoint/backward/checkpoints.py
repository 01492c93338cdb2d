"""The tensors that the forward pass keeps of each step, and how the backward pass obtains the step starts."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from symplectic_adjoint.backward.held_graphs import LinearizingField, PendingGraphs, StageGraph
from symplectic_adjoint.backward.schedule import OnlineCheckpoints, checkpoint_steps, stride
from symplectic_adjoint.backward.state_sketch import Marks, StateSketch
from symplectic_adjoint.backward.strategy import BackwardPass
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.memory.storage import OnDevice, Storage, to_device
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


def with_end_slope(marks: Marks | None, last: Step) -> Marks | None:
    """Return the marks of a solve with that of f at its end, if its last step called f there.

    Where graphs are held, a dense output is all that f is evaluated again for: at the end of its step.
    """
    s = last.tableau.stages
    return replace(marks, last_value=StateSketch(last.ks[s])) if marks and len(last.ks) > s else marks


class NoCheckpoints(KeepNothing):
    """Keeps nothing: the backward pass starts from y0, which it has anyway."""

    kept: Sequence[Tensor] = ()
    steps: Sequence[int] = ()
    last_stages: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()
    choice: None = None
    marks: Marks | None = None

    def finish(self, step: Step) -> None:
        self.marks = Marks(StateSketch(step.end()))


class StepStarts(KeepNothing):
    """Keeps the start of every step except the first, which is y0: N - 1 states."""

    last_stages: Sequence[Tensor] = ()
    graphs: Sequence[StageGraph] = ()
    choice: None = None
    marks: Marks | None = None

    def __init__(self, storage: Storage | None = None) -> None:
        self.kept: list[Tensor] = []
        self.steps: list[int] = []
        self._storage = storage or OnDevice()
        self._accepted = 0

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan
        if self._accepted:
            self._keep(self._accepted, step.y)
        self._accepted += 1

    def _keep(self, n: int, y: Tensor) -> None:
        del n
        self.kept.append(self._storage.put(y))

    def finish(self, step: Step) -> None:
        self.marks = Marks(StateSketch(step.end()))


class StartsAndLastStages(StepStarts):
    """Keeps the step starts and, for the first backward pass, the stages k_1 .. k_s of the last step.

    A solve of one step keeps no stages: many such solves in a row, as in an ODE-RNN, would hold s states each. Neither
    does a captured one, whose programs recompute them in less time than copying takes.
    """

    def finish(self, step: Step) -> None:
        super().finish(step)
        if self._accepted > 1 and not step.captured:
            self.last_stages = step.ks[: step.tableau.stages]


class Stages(StepStarts):
    """Keeps the start and k_1 .. k_{s-1} of every step, and k_s of the last: N s states, in step order."""

    def accept(self, plan: StepPlan, step: Step) -> None:
        super().accept(plan, step)
        self.kept.extend(map(self._storage.put, step.own_stages(step.tableau.needed_stages)))

    def finish(self, step: Step) -> None:
        super().finish(step)
        s = step.tableau.stages
        self.kept.extend(map(self._storage.put, step.own_stages(s)[step.tableau.needed_stages :]))


class SelectedStarts(StartsAndLastStages):
    """Keeps up to `capacity` step starts, chosen for the cheapest backward pass, and the start of the last step.

    total: the number of steps, None if it is not known in advance. `steps` lists the steps whose starts are kept.
    """

    def __init__(self, capacity: int, total: int | None, storage: Storage):
        super().__init__(storage)
        self._capacity = capacity
        self._online = OnlineCheckpoints(capacity) if total is None else None
        self._plans_all = total is not None and total - 1 <= capacity
        self._planned = set() if total is None else set(checkpoint_steps(total, capacity))
        self._newest: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.kept) + (self._newest is not None)

    @property
    def all_kept(self) -> bool:
        """Whether every start so far is kept, and will be until the next step."""
        return len(self.kept) < self._capacity if self._online is not None else self._plans_all

    def _keep(self, n: int, y: Tensor) -> None:
        before, self._newest = self._newest, (n, y)
        if before is None:
            return
        if self._online is not None:
            evicted = self._online.admit()
            if evicted is not None:
                del self.kept[evicted], self.steps[evicted]
        elif before[0] not in self._planned:
            return
        self.steps.append(before[0])
        self.kept.append(self._storage.put(before[1]))

    def finish(self, step: Step) -> None:
        super().finish(step)
        if self._newest is not None:  # needed first, and freed as soon as its step is reversed
            self.steps.append(self._newest[0])
            self.kept.append(self._newest[1])
            self._newest = None


class LastGraphs(KeepNothing):
    """Keeps what `states` keeps, and the graphs of the last `number` f calls of the accepted steps.

    first: the first step whose f calls are put on a graph.
    """

    steps: Sequence[int] = ()
    choice: None = None
    marks: Marks | None = None

    def __init__(self, states: StepStarts, number: float, *, first: int, with_time: bool):
        self._states, self._number, self._first, self._with_time = states, number, first, with_time
        self.graphs: deque[StageGraph] = deque()
        self._pending = PendingGraphs()
        self._accepted = 0

    @property
    def kept(self) -> Sequence[Tensor]:
        return self._states.kept

    @property
    def last_stages(self) -> Sequence[Tensor]:
        return self._states.last_stages

    def wrap(self, f: Field) -> RightHandSide:
        return LinearizingField(
            f, self._record, with_time=self._with_time, enabled=lambda: self._accepted >= self._first
        )

    def accept(self, plan: StepPlan, step: Step) -> None:
        self._states.accept(plan, step)
        self.graphs += self._pending.take_step(self._accepted, step)
        self._accepted += 1

    def finish(self, step: Step) -> None:
        self._states.finish(step)
        self._pending.clear()
        self.marks = with_end_slope(self._states.marks, step) if self.graphs else self._states.marks

    def _record(self, graph: Linearization, k: Tensor) -> None:
        self._pending.add(graph, k)
        if len(self.graphs) + len(self._pending) > self._number:
            if self.graphs:
                self.graphs.popleft()
            else:
                self._pending.drop_oldest()


class KeptStarts:
    """The start of each step, from the last to the first, if all of them were kept."""

    def __init__(self, given: BackwardPass):
        self._kept, self._device = given.take_starts(), given.y0.device

    def take(self, n: int) -> list[Tensor]:
        """Return [y_n]. Call once per step, with n decreasing."""
        del n
        return [to_device(self._kept.pop(), self._device)]


class RecomputedStarts:
    """The start of each step, from the last to the first: up to `capacity` are held at a time, the others recomputed.

    A kept start comes with those stages of its step that were kept.
    """

    def __init__(self, given: BackwardPass, capacity: int, storage: Storage):
        self._given, self._capacity, self._storage = given, capacity, storage
        self._device = given.y0.device
        self._held: list[tuple[int, list[Tensor]]] = []
        for n, x in zip((0, *given.steps), given.take_starts(), strict=True):
            if self._held and self._held[-1][0] == n:
                self._held[-1][1].append(x)
            else:
                self._held.append((n, [x]))

    def take(self, n: int) -> list[Tensor]:
        """Return [y_n, k_1, k_2, ...], with the k_i that were kept. Call once per step, with n decreasing."""
        while (at := self._held[-1][0]) != n:
            free = self._capacity + 1 - len(self._held)  # y0 does not count
            to = at + stride(n - at + 1, free)
            y = self._recompute(at, to)
            if to == n:
                return [y]
            self._held.append((to, [self._storage.put(y)]))
        return [to_device(x, self._device) for x in self._held.pop()[1]]

    @torch.no_grad()
    def _recompute(self, at: int, to: int) -> Tensor:
        """Return the start of step `to`, recomputed from that of step `at`, the last one held."""
        problem, plans = self._given.problem, self._given.trajectory.plans
        y, k1 = to_device(self._held[-1][1][0], self._device), None
        for plan in plans[at:to]:
            step = problem.step(self._given.field, plan, y, () if k1 is None else (k1,))
            y, k1 = step.end(), step.end_slope()
        return y
