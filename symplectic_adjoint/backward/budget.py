"""What is held within a number of bytes: graphs, stages and starts, whatever saves most f calls a byte last to go."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from symplectic_adjoint.backward.checkpoints import SomeStarts
from symplectic_adjoint.backward.cost import CallCost
from symplectic_adjoint.backward.held_graphs import FreshGraphs, OnGraph, StageGraph, first_step_on_graph
from symplectic_adjoint.field.field import Field, Linearization
from symplectic_adjoint.memory.storage import AsMade
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.problem import Choice
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True)
class Budget:
    """The bytes that a solve and its way back may have live at once, and what of them is spoken for.

    limit_bytes: all of them. stages: s. outputs: J, of which ys and their cotangents are live. adaptive: whether steps
    are judged, which takes some states.
    """

    limit_bytes: int
    cost: CallCost
    stages: int
    outputs: int
    adaptive: bool

    @property
    def least_bytes(self) -> int:
        """Room for the step at hand, its start, and one start besides."""
        return self.taken(2, 0, 0)

    @property
    def starts(self) -> int:
        """How many starts there is room for besides that of the step at hand, where nothing else is kept."""
        return (self.limit_bytes - self.taken(1, 0, 0)) // self.cost.state_bytes

    def taken(self, starts: int, stages: int, graphs: int) -> int:
        """The most that is live at once where so many states are kept and the graphs of so many f calls held."""
        return max(self.on_the_way_there(starts, stages, graphs), self.on_the_way_back(starts, stages, graphs))

    def graphs_beside(self, starts: int, stages: int) -> int:
        """How many graphs can be held where so many states are kept."""
        without = self.taken(starts, stages, 1) - self.cost.graph_bytes
        return max(0, self.limit_bytes - without) // self.cost.graph_bytes

    def graphs_at_the_end(self, steps: int) -> int:
        """The same after so many steps whose starts and stages are all kept."""
        return self.graphs_beside(steps - 1, steps * (self.stages - 1))

    def of_the_whole_graph(self, steps: int) -> int:
        """The most that is live where the solve is on one graph, as in backpropagation; outputs are live twice then."""
        cost, states = self.cost, 1 + 3 * self.outputs
        graphs = steps * self.stages * cost.saved_bytes + max(0, cost.vjp_peak_bytes - cost.graph_bytes)
        return states * cost.state_bytes + graphs + cost.parameter_bytes

    def on_the_way_there(self, starts: int, stages: int, graphs: int) -> int:
        """ys, and the next call of f when all stages of its step are there; or the judging of the step."""
        cost = self.cost
        return self._beside_there[graphs > 0] + (starts + stages) * cost.state_bytes + graphs * cost.graph_bytes

    def on_the_way_back(self, starts: int, stages: int, graphs: int) -> int:
        """ys and their cotangents, and the first product; the stages of its step are among those kept, if any are."""
        cost, states = self.cost, starts + max(stages, self.stages)
        return self._beside_back[graphs > 0] + states * cost.state_bytes + graphs * cost.graph_bytes

    @cached_property
    def _beside_there(self) -> tuple[int, int]:
        """Without graphs, and with some: what is live beside them and what is kept. It is asked for in every step."""
        cost = self.cost
        judging = 8 * cost.state_bytes if self.adaptive else 0
        peaks = (cost.plain_peak_bytes, cost.graphed_peak_bytes)
        plain, graphed = (max(2 * cost.state_bytes + peak, judging) for peak in peaks)
        states = (self.outputs + self.stages) * cost.state_bytes
        return states + plain, states + graphed

    @cached_property
    def _beside_back(self) -> tuple[int, int]:
        """The same."""
        cost = self.cost
        fixed = (2 * self.outputs + 1) * cost.state_bytes + cost.parameter_bytes
        return fixed + cost.vjp_peak_bytes, fixed + max(0, cost.parted_peak_bytes - cost.graph_bytes)


class WithinBudget(KeepNothing):
    """Every start, stage and graph as long as they fit; then without the oldest graphs, stages, and some of the starts.

    total: the number of steps, None where it is not known beforehand.
    """

    def __init__(self, budget: Budget, total: int | None, *, with_time: bool):
        self.graphs: deque[StageGraph] = deque()
        self._budget, self._with_time = budget, with_time
        self._starts = SomeStarts(budget.starts, total, AsMade())
        self._room = budget.graphs_beside(0, 0)
        """For graphs, in the step at hand."""
        most = 0 if total is None else budget.graphs_at_the_end(total)
        self._first = first_step_on_graph(most, budget.stages, total)
        self._stages: dict[int, list[Tensor]] = {}
        """k_1 .. of the steps that have any, oldest first."""
        self._number_of_stages = 0
        self._fresh = FreshGraphs()
        self._taken = 0
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
        back = self._budget.on_the_way_back(*self._held(), len(self.graphs))
        return Choice(
            budget_bytes=self._budget.limit_bytes,
            predicted_peak_bytes=max(self._peak_bytes, back),
            steps=self._taken,
            f_calls=self._taken * self._budget.stages,
            starts=min(self._taken, len(self._starts) + 1),
            stages=self._number_of_stages,
            graphs=len(self.graphs),
        )

    def wrap(self, f: Field) -> OnGraph:
        return OnGraph(f, self._note, with_time=self._with_time, wanted=self._holds_graphs)

    def _holds_graphs(self) -> bool:
        """Whether there is room for one graph, be it the only one. Once there is none, there never is.

        Nor is one wanted that would have to go before the end.
        """
        return self._room > 0 and self._taken >= self._first and self._starts.all_kept

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
        s, n = step.tableau.stages, self._taken
        if len(self._fresh):
            self.graphs += self._fresh.taken(n, step)
        self._taken += 1
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
        budget = self._budget
        while budget.taken(*self._held(), len(self.graphs) + len(self._fresh)) > budget.limit_bytes:
            if self.graphs:
                self.graphs.popleft()
            elif len(self._fresh):
                self._fresh.drop_oldest()
            elif self._stages:
                n = next(iter(self._stages))
                self._stages[n].pop()
                self._number_of_stages -= 1
                if not self._stages[n]:
                    del self._stages[n]
            else:
                break  # starts are given up by themselves
        self._room = budget.graphs_beside(*self._held())
        self._note_peak()

    def _note_peak(self) -> None:
        there = self._budget.on_the_way_there(*self._held(), len(self.graphs) + len(self._fresh))
        if there > self._peak_bytes:
            self._peak_bytes = there

    def _in_order(self) -> list[tuple[int, Tensor]]:
        """(step, tensor), the start of a step before its stages; that of the first one is y0, which is not here."""
        starts = list(zip(self._starts.steps, self._starts.kept, strict=True))
        stages = [(n, k) for n, ks in self._stages.items() for k in ks]
        return sorted(starts + stages, key=lambda pair: pair[0])  # stable
