"""A finished forward pass: its steps, and the step that each output belongs to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from symplectic_adjoint.field.field import Field
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.events import Crossing
from symplectic_adjoint.solve.grid import Grid, StepPlan
from symplectic_adjoint.solve.stats import Stats


@dataclass
class Trajectory:
    """The record of a forward pass. Outputs that were not reached have no entry.

    crossing: the event that ended the solve, None without an event. stopped_y: the last state if option "stop" ended
    the solve, else None; without a graph. on_graph: whether the steps are on the caller's autograd graph.
    """

    plans: Sequence[StepPlan]
    output_step: Sequence[int]
    output_sigma: Sequence[float]
    stats: Stats
    field: Field
    crossing: Crossing | None = None
    stopped_y: Tensor | None = None
    on_graph: bool = False

    @property
    def make_grid(self) -> Callable[[], Grid]:
        """A function that returns the Grid of the steps and keeps neither func nor any tensor alive."""
        return partial(Grid.from_plans, self.plans, self.output_step, self.output_sigma)

    def some_times(self, most: int) -> Iterator[float]:
        """Yield the start of the solve and the ends of its steps, of evenly spaced ones if they are many more."""
        every = max(1, len(self.plans) // most)
        yield from (plan.t for plan in self.plans[:1])
        yield from (plan.t_end for plan in self.plans[::-every])

    def dense_outputs(self) -> dict[int, list[int]]:
        """Return, by step, the outputs inside the step or at its end, unless that end is pinned to the output."""
        inside: dict[int, list[int]] = {}
        for j, n in enumerate(self.output_step):
            if n >= 0 and self.plans[n].pinned_to != j:
                inside.setdefault(n, []).append(j)
        return inside

    def f_calls_on_graph(self, tableau: ButcherTableau) -> int:
        """Return the number of f calls that autograd transposes if these steps are on the caller's graph."""
        s, rows, last = tableau.stages, tableau.interpolant.rows, len(self.plans) - 1
        calls = len(self.plans) * s
        for n in self.dense_outputs():  # f at a step's end is the next step's k_1, if there is a next step
            calls += max(0, rows - s - 1) + (1 if n == last and rows > s else 0)
        return calls
