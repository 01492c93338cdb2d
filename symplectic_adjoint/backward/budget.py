"""A memory budget, and the keeper that stays within it.

Tensors that save few f calls per byte are discarded first: graphs of f calls, then stages, then step starts.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from symplectic_adjoint.backward.checkpoints import SelectedStarts, with_end_slope
from symplectic_adjoint.backward.held_graphs import LinearizingField, PendingGraphs, StageGraph, first_step_on_graph
from symplectic_adjoint.backward.memory_model import MemoryModel
from symplectic_adjoint.backward.state_sketch import Marks
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.memory.storage import OnDevice
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.stats import Choice
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True)
class Budget:
    """The bytes that a solve and its backward pass may have live at any one time."""

    limit_bytes: int
    model: MemoryModel

    @property
    def starts(self) -> int:
        """The number of step starts that fit besides that of the current step, if nothing else is kept."""
        return (self.limit_bytes - self.model.peak_bytes(1, 0, 0)) // self.model.cost.state_bytes

    def graphs_beside(self, starts: int, stages: int) -> int:
        """Return how many graphs fit besides this many kept states."""
        graph_bytes = self.model.cost.graph_bytes
        without = self.model.peak_bytes(starts, stages, 1) - graph_bytes
        return max(0, self.limit_bytes - without) // graph_bytes

    def graphs_at_the_end(self, steps: int) -> int:
        """Return how many graphs fit after `steps` steps if all their starts and stages are kept."""
        return self.graphs_beside(steps - 1, steps * (self.model.stages - 1))


class StartsWithinBudget(SelectedStarts):
    """Keeps as many step starts as fit beside captured programs, which keep no stages and no graphs."""

    def __init__(self, budget: Budget, total: int | None):
        self._budget, self._other_bytes = budget, budget.model.programs_bytes
        free = budget.limit_bytes - self._other_bytes - budget.model.peak_bytes(1, 0, 0)
        super().__init__(max(1, free // budget.model.cost.state_bytes), total, OnDevice())

    @classmethod
    def least_bytes(cls, model: MemoryModel) -> int:
        """Return the least memory for a gradient."""
        return model.least_bytes + model.programs_bytes

    @property
    def choice(self) -> Choice:  # pyright: ignore[reportIncompatibleVariableOverride]
        model, steps = self._budget.model, self._accepted
        return Choice(
            budget_bytes=self._budget.limit_bytes,
            predicted_peak_bytes=self._other_bytes + model.peak_bytes(len(self), 0, 0),
            steps=steps,
            f_calls=steps * model.stages,
            starts=min(steps, len(self) + 1),
            stages=0,
            graphs=0,
        )


class WithinBudget(KeepNothing):
    """Keeps all starts, stages and graphs while they fit; then discards the oldest graphs and stages, and some starts.

    total: the number of steps, None if it is not known in advance.
    """

    marks: Marks | None = None

    def __init__(self, budget: Budget, total: int | None, *, with_time: bool):
        self.graphs: deque[StageGraph] = deque()
        self._budget, self._with_time = budget, with_time
        self._starts = SelectedStarts(budget.starts, total, OnDevice())
        self._graph_capacity = budget.graphs_beside(0, 0)
        """The number of graphs that fit besides the states kept so far."""
        most = 0 if total is None else budget.graphs_at_the_end(total)
        self._first = first_step_on_graph(most, budget.model.stages, total)
        self._stages: dict[int, list[Tensor]] = {}
        """The k_1, k_2, ... kept, by step, oldest step first."""
        self._number_of_stages = 0
        self._pending = PendingGraphs()
        self._accepted = 0
        self._peak_bytes = 0

    @property
    def kept(self) -> Sequence[Tensor]:
        return [x for _, x in self._in_order()]

    @property
    def steps(self) -> Sequence[int]:
        return [n for n, _ in self._in_order()]

    @property
    def last_stages(self) -> Sequence[Tensor]:
        return self._starts.last_stages

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

    def wrap(self, f: Field) -> LinearizingField:
        return LinearizingField(f, self._record, with_time=self._with_time, enabled=self._holds_graphs)

    def _holds_graphs(self) -> bool:
        """Return whether a graph fits that will not have to be discarded before the end.

        Once no graph fits, none ever will.
        """
        return self._graph_capacity > 0 and self._accepted >= self._first and self._starts.all_kept

    def _held(self) -> tuple[int, int]:
        return len(self._starts), self._number_of_stages

    def _record(self, graph: Linearization, k: Tensor) -> None:
        self._pending.add(graph, k)
        if len(self.graphs) + len(self._pending) > self._graph_capacity:
            self._discard_to_fit()

    def accept(self, plan: StepPlan, step: Step) -> None:
        if len(self._pending):
            self._note_peak()
        self._starts.accept(plan, step)
        s, n = step.tableau.stages, self._accepted
        if len(self._pending):
            self.graphs += self._pending.take_step(n, step)
        self._accepted += 1
        if not self._starts.all_kept:  # without its start a stage is useless; this step's start is held
            self._stages.clear()
            self._number_of_stages = 0
            self.graphs.clear()  # no further call goes on a graph, so these will not be the last ones
            self._pending.clear()
        if s > 1:
            self._stages[n] = step.ks[: s - 1]
            self._number_of_stages += s - 1
        self._discard_to_fit()

    def finish(self, step: Step) -> None:
        self._starts.finish(step)
        self._pending.clear()
        self.marks = with_end_slope(self._starts.marks, step) if self.graphs else self._starts.marks

    def _discard_to_fit(self) -> None:
        """Discard graphs, then stages, until the rest fits. SelectedStarts discards starts itself."""
        budget = self._budget
        while budget.model.peak_bytes(*self._held(), len(self.graphs) + len(self._pending)) > budget.limit_bytes:
            if self.graphs:
                self.graphs.popleft()
            elif len(self._pending):
                self._pending.drop_oldest()
            elif self._stages:
                self._drop_stage()
            else:
                break
        self._graph_capacity = budget.graphs_beside(*self._held())
        self._note_peak()

    def _drop_stage(self) -> None:
        n = next(iter(self._stages))
        self._stages[n].pop()
        self._number_of_stages -= 1
        if not self._stages[n]:
            del self._stages[n]

    def _note_peak(self) -> None:
        graphs = len(self.graphs) + len(self._pending)
        self._peak_bytes = max(self._peak_bytes, self._budget.model.forward_bytes(*self._held(), graphs))

    def _in_order(self) -> list[tuple[int, Tensor]]:
        """Return the kept tensors with their steps, each start before its stages. y0 is not among them."""
        starts = list(zip(self._starts.steps, self._starts.kept, strict=True))
        stages = [(n, k) for n, ks in self._stages.items() for k in ks]
        return sorted(starts + stages, key=lambda pair: pair[0])  # stable
