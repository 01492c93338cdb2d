"""f for steps each of whose calls is to have a graph."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from weakref import ref

from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.times import Time
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The graph of f at stage `stage` of step `step`."""

    graph: Linearization
    step: int
    stage: int


def first_step_on_graph(graphs: float, stages: int, total: int | None) -> int:
    """From which step on calls are to be on a graph for the last `graphs` of them to be; 0 where nobody knows yet.

    One step early, for the first stage of a step may have been called as the last of the one before.
    """
    if total is None or math.isinf(graphs):
        return 0
    return max(0, total - math.ceil(graphs / stages) - 1)


class FreshGraphs:
    """The graphs of the f calls that belong to no accepted step yet, oldest first."""

    def __init__(self) -> None:
        self._fresh: list[tuple[ref[Tensor], Linearization]] = []

    def __len__(self) -> int:
        return len(self._fresh)

    def note(self, graph: Linearization, k: Tensor) -> None:
        self._fresh = [(value, one) for value, one in self._fresh if value() is not None]  # a rejected step's are gone
        self._fresh.append((ref(k), graph))

    def drop_oldest(self) -> None:
        del self._fresh[0]

    def clear(self) -> None:
        self._fresh.clear()

    def of_step(self, n: int, step: Step) -> list[StageGraph]:
        """Take out and return the graphs of this step, accepted as the n-th, each with f's value."""
        stages = {id(k): i for i, k in enumerate(step.ks[: step.tableau.stages])}
        fresh, self._fresh, found = self._fresh, [], list[StageGraph]()
        for value, graph in fresh:
            k = value()
            if k is not None and id(k) in stages:
                graph.k = k  # for the times' cotangents, and for dense output
                found.append(StageGraph(graph, n, stages[id(k)]))
            else:
                self._fresh.append((value, graph))
        return found


class OnGraph:
    """f, each call of which is on a graph of its own, that `note` is told of with f's value; while `wanted` says so."""

    code: None = None

    def __init__(
        self,
        f: Field,
        note: Callable[[Linearization, Tensor], None],
        *,
        with_time: bool,
        wanted: Callable[[], bool] = lambda: True,
    ):
        self._f, self._note, self._with_time, self._wanted = f, note, with_time, wanted
        self.f_calls = f.f_calls

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        if not self._wanted():
            k = self._f(t, y)
            self.f_calls = self._f.f_calls
            return k
        one = self._f.linearize(t, y, with_time=self._with_time, with_value=True)
        self.f_calls, k = self._f.f_calls, one.k
        assert k is not None
        one.k = None  # whoever needs it longer than the step keeps it
        self._note(one, k)
        return k

    def adjacent_time(self, t: Time, direction: float) -> Time:
        return self._f.adjacent_time(t, direction)

    def restart(self) -> None:
        self._f.restart()

    def place(self, index: int) -> Place:
        return self._f.place(index)
