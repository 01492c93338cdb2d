"""A memory budget, and the keeper that stays within it.

What saves the most f calls per byte is given up last: graphs of f calls go first, then stages, then starts of steps.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from symplectic_adjoint.backward.checkpoints import SomeStarts
from symplectic_adjoint.backward.held_graphs import FreshGraphs, OnGraph, StageGraph, first_step_on_graph
from symplectic_adjoint.backward.memory_model import MemoryModel
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.memory.storage import AsMade
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.stats import Choice
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True)
class Budget:
    """The bytes that a solve and its backward pass may have live at once."""

    limit_bytes: int
    model: MemoryModel

    @property
    def starts(self) -> int:
        """The starts of steps that fit besides that of the step at hand, where nothing else is kept."""
        return (self.limit_bytes - self.model.peak_bytes(1, 0, 0)) // self.model.cost.state_bytes

    def graphs_beside(self, starts: int, stages: int) -> int:
        """Return how many graphs fit beside so many states."""
        graph_bytes = self.model.cost.graph_bytes
        without = self.model.peak_bytes(starts, stages, 1) - graph_bytes
        return max(0, self.limit_bytes - without) // graph_bytes

    def graphs_at_the_end(self, steps: int) -> int:
        """Return how many graphs fit after `steps` steps whose starts and stages are all kept."""
        return self.graphs_beside(steps - 1, steps * (self.model.stages - 1))


class WithinBudget(KeepNothing):
    """Keep every start, stage and graph while they fit; then give up the oldest graphs, stages, and some starts.

    total: the number of steps, None where it is not known beforehand.
    """

    def __init__(self, budget: Budget, total: int | None, *, with_time: bool):
        self.graphs: deque[StageGraph] = deque()
        self._budget, self._with_time = budget, with_time
        self._starts = SomeStarts(budget.starts, total, AsMade())
        self._room = budget.graphs_beside(0, 0)
        """Graphs that fit, as of the step at hand."""
        most = 0 if total is None else budget.graphs_at_the_end(total)
        self._first = first_step_on_graph(most, budget.model.stages, total)
        self._stages: dict[int, list[Tensor]] = {}
        """k_1, k_2, ... of the steps that have any, oldest step first."""
        self._number_of_stages = 0
        self._fresh = FreshGraphs()
        self._accepted = 0
        self._peak_bytes = 0

    @property
    def kept(self) -> Sequence[Tensor]:
        return [x for _, x in self._in_order()]

    @property
    def steps(self) -> Sequence[int]:
        return [n for n, _ in self._in_order()]

    @property
    def once(self) -> Sequence[Tensor]:
        return self._starts.once

    @property
    def choice(self) -> Choice:
        backward_bytes = self._budget.model.backward_bytes(*self._held(), len(self.graphs))
        return Choice(
            budget_bytes=self._budget.limit_bytes,
            predicted_peak_bytes=max(self._peak_bytes, backward_bytes),
            steps=self._accepted,
            f_calls=self._accepted * self._budget.model.stages,
            starts=min(self._accepted, len(self._starts) + 1),
            stages=self._number_of_stages,
            graphs=len(self.graphs),
        )

    def wrap(self, f: Field) -> OnGraph:
        return OnGraph(f, self._note, with_time=self._with_time, wanted=self._holds_graphs)

    def _holds_graphs(self) -> bool:
        """Whether there is room for a graph that will not have to go before the end.

        Once there is no room for a single one, there never is again.
        """
        return self._room > 0 and self._accepted >= self._first and self._starts.all_kept

    def _held(self) -> tuple[int, int]:
        return len(self._starts), self._number_of_stages

    def _note(self, graph: Linearization, k: Tensor) -> None:
        self._fresh.note(graph, k)
        if len(self.graphs) + len(self._fresh) > self._room:
            self._give_up()

    def accept(self, plan: StepPlan, step: Step) -> None:
        if len(self._fresh):
            self._note_peak()
        self._starts.accept(plan, step)
        s, n = step.tableau.stages, self._accepted
        if len(self._fresh):
            self.graphs += self._fresh.of_step(n, step)
        self._accepted += 1
        if not self._starts.all_kept:  # stages are of no use without their start; the newest one is there
            self._stages.clear()
            self._number_of_stages = 0
            self.graphs.clear()  # no call is on a graph from here on, and those before are no longer the last ones
            self._fresh.clear()
        if s > 1:
            self._stages[n] = step.ks[: s - 1]
            self._number_of_stages += s - 1
        self._give_up()

    def finish(self, step: Step) -> None:
        self._starts.finish(step)
        self._fresh.clear()

    def _give_up(self) -> None:
        """Drop graphs, then stages, until the rest fits. Starts are given up by SomeStarts itself."""
        budget = self._budget
        while budget.model.peak_bytes(*self._held(), len(self.graphs) + len(self._fresh)) > budget.limit_bytes:
            if self.graphs:
                self.graphs.popleft()
            elif len(self._fresh):
                self._fresh.drop_oldest()
            elif self._stages:
                self._drop_stage()
            else:
                break
        self._room = budget.graphs_beside(*self._held())
        self._note_peak()

    def _drop_stage(self) -> None:
        n = next(iter(self._stages))
        self._stages[n].pop()
        self._number_of_stages -= 1
        if not self._stages[n]:
            del self._stages[n]

    def _note_peak(self) -> None:
        graphs = len(self.graphs) + len(self._fresh)
        self._peak_bytes = max(self._peak_bytes, self._budget.model.forward_bytes(*self._held(), graphs))

    def _in_order(self) -> list[tuple[int, Tensor]]:
        """Kept tensors with their steps, the start of a step before its stages; y0, step 0's start, is not kept."""
        starts = list(zip(self._starts.steps, self._starts.kept, strict=True))
        stages = [(n, k) for n, ks in self._stages.items() for k in ks]
        return sorted(starts + stages, key=lambda pair: pair[0])  # stable
