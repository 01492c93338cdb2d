"""Steps of the backward pass, rebuilt from the last to the first from what was kept of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.backward.checkpoints import RecomputedStarts, Starts
from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.linearization import Linearization, Pull
from symplectic_adjoint.memory.storage import brought
from symplectic_adjoint.steps.runge_kutta import Step
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents, rows_of, transpose_step


def swept(given: BackwardPass, steps: "StepsFromStarts | StepsFromStages") -> Gradients:
    """Return the gradient by transposing the steps from the last to the first, one f on the graph at a time."""
    with_time = given.t is not None

    def pull_back(n: int, lam: Tensor, outputs: Sequence[OutputCotangent], pull: Pull) -> StepCotangents:
        step, graphs = steps.step(n)
        if graphs is not None:
            graphs += [None] * (rows_of(step.tableau, outputs) - len(graphs))
        return transpose_step(given.field, step, lam, outputs, pull, with_time=with_time, graphs=graphs)

    return sweep(given, pull_back)


class _KeptSteps:
    """Steps from the last to the first, each asked for once."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._is_last = True
        self._holds_output = given.trajectory.dense_outputs()
        self._end: Tensor | None = None
        """The end of the step to come, if that step holds an output, which may need f there."""

    def _step(self, n: int, start: Tensor, ks: Sequence[Tensor]) -> Step:
        end, self._end = self._end, start if n - 1 in self._holds_output else None
        self._is_last = False
        return self._given.problem.step(self._given.field, self._given.trajectory.plans[n], start, ks, end=end)

    def _graphs(self, n: int) -> list[Linearization | None] | None:
        """The graphs held of the step's stages, the last ones; each is handed out once."""
        held, found = self._given.graphs, dict[int, Linearization]()
        while held and held[-1].step == n:
            one = held.pop()
            found[one.stage] = one.graph
        return [found.get(i) for i in range(self._given.problem.tableau.stages)] if found else None


class StepsFromStarts(_KeptSteps):
    """Steps from their starts, with their stages recomputed; the last step's are still at hand in a first pass."""

    def __init__(self, given: BackwardPass, starts: Starts | RecomputedStarts):
        super().__init__(given)
        self._starts = starts

    def step(self, n: int) -> tuple[Step, list[Linearization | None] | None]:
        """Return step n and the graphs held of its stages, None where there are none."""
        is_last, once, graphs = self._is_last, self._given.once, self._graphs(n)
        start, *known = self._starts.of(n)
        known, rows = once if is_last else known, self._given.problem.tableau.stages - (0 if is_last else 1)
        if graphs is not None and None not in graphs:
            known = [one.k for one in graphs if one is not None and one.k is not None]
        elif graphs is not None and n not in self._holds_output:
            rows = max(i for i, one in enumerate(graphs) if one is None)  # the stages that this one's state is made of
        step = self._step(n, start, known)
        once.clear()
        with torch.no_grad():
            step.evaluate(rows)
        return step, graphs


class StepsFromStages(_KeptSteps):
    """Steps from their starts and stages, all of which were kept."""

    def __init__(self, given: BackwardPass):
        super().__init__(given)
        self._kept, self._device = given.take_starts(), given.y0.device

    def step(self, n: int) -> tuple[Step, list[Linearization | None] | None]:
        """Return step n and the graphs held of its stages, None where there are none."""
        stages = self._given.problem.tableau.stages - (0 if self._is_last else 1)
        first = len(self._kept) - stages
        ks = [brought(k, self._device) for k in self._kept[first:]]
        del self._kept[first:]
        return self._step(n, brought(self._kept.pop(), self._device), ks), self._graphs(n)
