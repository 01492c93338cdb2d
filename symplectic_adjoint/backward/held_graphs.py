"""Graphs of single f calls, held from the forward pass until their transposes are applied."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import ref

from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.fills import Fills
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.field.time_tensors import TimeTensors
from symplectic_adjoint.field.times import Time
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The graph of f at stage `stage` of step `step`."""

    graph: Linearization
    step: int
    stage: int


def first_step_on_graph(graphs: float, stages: int, total: int | None) -> int:
    """Return the first step whose f calls go on a graph, so that the last `graphs` calls of `total` steps do.

    That is one step early: the first stage of a step may have been called as the last stage of the step before. 0 if
    the number of steps is not known in advance (total is None).
    """
    if total is None or math.isinf(graphs):
        return 0
    return max(0, total - math.ceil(graphs / stages) - 1)


class PendingGraphs:
    """The graphs of f calls that do not yet belong to an accepted step, oldest first."""

    def __init__(self) -> None:
        self._pending: list[tuple[ref[Tensor], Linearization]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, graph: Linearization, k: Tensor) -> None:
        """Add the graph of the call that returned k. Graphs of rejected steps, whose values are gone, are dropped."""
        self._pending = [(value, other) for value, other in self._pending if value() is not None]
        self._pending.append((ref(k), graph))

    def drop_oldest(self) -> None:
        del self._pending[0]

    def clear(self) -> None:
        self._pending.clear()

    def take_step(self, n: int, step: Step) -> list[StageGraph]:
        """Remove and return the graphs of this step, accepted as step n, each with the value of f."""
        stages = {id(k): i for i, k in enumerate(step.ks[: step.tableau.stages])}
        pending, self._pending, found = self._pending, [], list[StageGraph]()
        for value, graph in pending:
            k = value()
            if k is not None and id(k) in stages:
                graph.k = k  # needed for the cotangents of times, and for dense output
                found.append(StageGraph(graph, n, stages[id(k)]))
            else:
                self._pending.append((value, graph))
        return found


class LinearizingField:
    """f, with every call on a graph of its own while `enabled()`; each graph is passed to `record` with f's value."""

    code: None = None

    def __init__(
        self,
        f: Field,
        record: Callable[[Linearization, Tensor], None],
        *,
        with_time: bool,
        enabled: Callable[[], bool] = lambda: True,
    ):
        self._f, self._record, self._with_time, self._enabled = f, record, with_time, enabled
        self.f_calls = f.f_calls

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        if not self._enabled():
            k = self._f(t, y)
            self.f_calls = self._f.f_calls
            return k
        linearization = self._f.linearize(t, y, with_time=self._with_time, with_value=True)
        self.f_calls, k = self._f.f_calls, linearization.k
        assert k is not None
        linearization.k = None  # so that no graph keeps k alive beyond the step, unless `record` sets it again
        self._record(linearization, k)
        return k

    @property
    def resolution(self) -> Resolution | None:
        return self._f.resolution

    @property
    def times(self) -> TimeTensors:
        return self._f.times

    @property
    def fills(self) -> Fills:
        return self._f.fills

    def adjacent_time(self, t: Time, direction: float) -> Time:
        return self._f.adjacent_time(t, direction)

    def restart(self) -> None:
        self._f.restart()

    def place(self, index: int) -> Place:
        return self._f.place(index)
