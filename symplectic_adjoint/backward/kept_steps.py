"""The steps of the backward pass, rebuilt from the last to the first from what the forward pass kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import KeptStarts, RecomputedStarts
from symplectic_adjoint.backward.recomputed_values import StepValues
from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.linearization import Linearization, Pull
from symplectic_adjoint.memory.storage import to_device
from symplectic_adjoint.steps.output_cotangents import OutputCotangents
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import StepCotangents, rows_of, transpose_step


def transpose_steps(given: BackwardPass, steps: "StepsFromStarts | StepsFromStages") -> Gradients:
    """Return the gradient by transposing the steps from the last to the first, with one f on the graph at a time."""
    with_time, one_term = given.t is not None, given.problem.accumulate is None

    def pull_back(n: int, lam: Tensor, outputs: OutputCotangents, pull: Pull) -> StepCotangents:
        step, graphs, values = steps.step(n)
        if graphs is not None:
            graphs += [None] * (rows_of(step.tableau, outputs) - len(graphs))
        return transpose_step(
            given.field,
            step,
            lam,
            outputs,
            pull,
            with_time=with_time,
            graphs=graphs,
            values=values,
            one_term=one_term,
        )

    return sweep(given, pull_back)


ReversedStep = tuple[Step, list[Linearization | None] | None, StepValues | None]


class _ReversedSteps:
    """The steps from the last to the first. Each can be obtained once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._is_last = True
        self._holds_output = given.trajectory.dense_outputs()
        self._end: Tensor | None = None
        """The end of the next step to rebuild, where it is compared, or f may be needed there for a dense output."""
        self._end_slope: Tensor | None = None
        """f at that end, if a dense output is all that f is evaluated again for in that step."""

    def _step(self, n: int, start: Tensor, ks: Sequence[Tensor]) -> tuple[Step, StepValues | None]:
        """Return step n, whose graphs were removed, and its comparison.

        ks: its first stages, as the forward pass kept them.
        """
        given, end, end_slope = self._given, self._end, self._end_slope
        self._end = start if given.values is not None or n - 1 in self._holds_output else None
        self._end_slope = ks[0] if ks and self._needs_slope_alone(n - 1) else None
        self._is_last = False
        known_end = end if n in self._holds_output else None
        step = given.problem.step(given.field, given.trajectory.plans[n], start, ks, end=known_end)
        return step, given.values_of_step(n, kept=len(ks), end=end, end_slope=end_slope)

    def _needs_slope_alone(self, n: int) -> bool:
        """Return whether the graphs of all stages of step n are held, and f is needed at its end besides."""
        given, s = self._given, self._given.problem.tableau.stages
        if n not in self._holds_output or given.trajectory.plans[n].open_end or len(given.graphs) < s:
            return False
        return given.graphs[-s].step == n

    def _graphs(self, n: int) -> list[Linearization | None] | None:
        """Remove and return the graphs held of step n, one entry per stage; None if there are none."""
        held, found = self._given.graphs, dict[int, Linearization]()
        while held and held[-1].step == n:
            last = held.pop()
            found[last.stage] = last.graph
        return [found.get(i) for i in range(self._given.problem.tableau.stages)] if found else None


class StepsFromStarts(_ReversedSteps):
    """Steps rebuilt from their starts.

    Stages are recomputed, except the last step's if they were kept for the first backward pass.
    """

    def __init__(self, given: BackwardPass, starts: KeptStarts | RecomputedStarts):
        super().__init__(given)
        self._starts = starts

    def step(self, n: int) -> ReversedStep:
        """Return step n, the graphs held of its stages, None if there are none, and its comparison."""
        is_last, last_stages, graphs = self._is_last, self._given.last_stages, self._graphs(n)
        tableau = self._given.problem.tableau
        start, *known = self._starts.take(n)
        known, rows = last_stages or known, tableau.needed_stages  # an explicit last stage is evaluated on its graph
        if is_last and n in self._holds_output and tableau.interpolant.rows > tableau.stages:
            rows = tableau.stages  # of which the end of the step is made, where the output needs f
        if graphs is not None and None not in graphs:
            known = [one.k for one in graphs if one is not None and one.k is not None]
        elif graphs is not None and n not in self._holds_output:
            rows = max(i for i, one in enumerate(graphs) if one is None)  # the state of that stage needs these k_i
        step, values = self._step(n, start, known)
        last_stages.clear()
        if self._given.field.captured is None:  # a captured program evaluates them itself
            with torch.no_grad():
                step.evaluate(rows)
        return step, graphs, values


class StepsFromStages(_ReversedSteps):
    """Steps rebuilt from starts and stages that were all kept."""

    def __init__(self, given: BackwardPass):
        super().__init__(given)
        self._kept, self._device = given.take_starts(), given.y0.device

    def step(self, n: int) -> ReversedStep:
        """Return step n, the graphs held of its stages, None if there are none, and its comparison."""
        tableau, graphs = self._given.problem.tableau, self._graphs(n)
        stages = tableau.stages if self._is_last else tableau.needed_stages
        first = len(self._kept) - stages
        ks = [to_device(k, self._device) for k in self._kept[first:]]
        del self._kept[first:]
        step, values = self._step(n, to_device(self._kept.pop(), self._device), ks)
        return step, graphs, values
