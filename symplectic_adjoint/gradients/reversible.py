"""Any explicit method, made reversible and reversed step by step: memory independent of the number of steps."""

from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.backward.reversal import FinalPair, ReversalCheck, pull_back_end_outputs
from symplectic_adjoint.backward.running_sum import RunningSum
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.linearization import Pull
from symplectic_adjoint.steps.kind import MakeStep
from symplectic_adjoint.steps.output_cotangents import NO_OUTPUTS, OutputCotangents
from symplectic_adjoint.steps.reversible import CoupledStep, reversed_step
from symplectic_adjoint.steps.runge_kutta import Step, advance
from symplectic_adjoint.steps.transpose import StepCotangents, transpose_step


@dataclass(frozen=True)
class Reversible(Strategy):
    """Couple the method's steps on a pair of states and reverse them (McCallum and Foster, 2024, arXiv:2410.11648).

    The coupled steps (steps/reversible.py) have the method's order, but ys differ from those of other gradients by an
    error of the size of the tolerance. Steps end on every output. The gradient is exact for these steps, as far as
    reversing them restores the states: rounding errors grow as in a solve backwards in time, and by 1 / coupling per
    step. Memory (2 + s) D + A besides the outputs, whatever the number of steps; 2s f calls per step forward, 4s
    backward, half as many in the last step.

    coupling: 0 < coupling < 1; the closer to 1, the less of z a step mixes into y. A smaller value makes the forward
    pass more stable. Raises ValueError for any other coupling.
    """

    also_called: ClassVar[tuple[str, ...]] = ("ReversibleAdjoint",)

    coupling: float = 0.999

    def __post_init__(self) -> None:
        if isinstance(self.coupling, bool) or not isinstance(self.coupling, float) or not 0.0 < self.coupling < 1.0:
            raise ValueError(f"Reversible(coupling=...) must be a number between 0 and 1, got {self.coupling!r}")

    @property
    def make_step(self) -> MakeStep:
        return partial(CoupledStep, coupling=self.coupling)

    def memory_formula(self) -> str:
        return "(2 + s) D + A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction:
        s = model.stages
        calls = 2 * s * steps - s
        return Prediction(calls, 2 * calls, calls, model.peak_bytes(4, 0, 0))

    def keeper(self, given: ForwardPass) -> FinalPair:
        del given
        return FinalPair(attrgetter("z"))

    def backward(self, given: BackwardPass) -> Gradients:
        return sweep(given, _CoupledReversal(given, self.coupling).pull_back)


class _CoupledReversal:
    """The pair (y, z) at the end of the next step to reverse, and dL/dz there; dL/dy is the sweep's lam.

    For the last step, z is that at its start: nothing depends on z at its end.
    """

    def __init__(self, given: BackwardPass, coupling: float):
        self._given, self._coupling = given, coupling
        self._z = given.kept.pop() if given.kept else given.y0
        self._y = given.kept.pop() if given.kept else given.y0
        self._z_bar: Tensor | None = None
        self._check = ReversalCheck(given, self._y)

    @torch.no_grad()
    def pull_back(self, n: int, lam: Tensor, outputs: OutputCotangents, pull: Pull) -> StepCotangents:
        lam, bars = pull_back_end_outputs(self._given, n, self._y, lam, outputs)
        if self._check.samples(n):
            of_z = [] if self._z_bar is None else [self._z_bar]
            self._check.see(self._y, [lam, *of_z], sum(of_z, lam), self._given.trajectory.plans[n].h)
        if self._z_bar is not None:
            lam = self._undo_z(n, lam, bars, pull)
        self._undo_y(n, lam, bars, pull)
        assert self._z_bar is not None
        if n == 0:
            bars.y_terms.append(self._z_bar)  # z starts as y_0
        return bars

    def _undo_z(self, n: int, lam: Tensor, bars: StepCotangents, pull: Pull) -> Tensor:
        """Compute z from z+; return lam with dL/dy+ through z+ added."""
        given, plan = self._given, self._given.trajectory.plans[n]
        tableau, ends = given.problem.tableau, (plan.open_start, plan.open_end)
        assert self._z_bar is not None
        inverse = reversed_step(given.field, tableau, plan.t, plan.h, plan.t_end, self._y, ends)
        self._z = advance(self._z, -plan.h, tableau.terms.b, inverse.evaluate(tableau.stages))
        found = transpose_step(given.field, inverse, -self._z_bar, NO_OUTPUTS, pull, with_time=given.t is not None)
        bars.t_bar = bars.t_bar + found.t_bar
        bars.h_bar = bars.h_bar + found.t_bar - found.h_bar  # the inverse step goes from t + h by -h
        term = _sum(found.y_terms)
        if term is None:
            return lam
        bars.y_terms.append(term)
        return lam + term

    def _undo_y(self, n: int, lam: Tensor, bars: StepCotangents, pull: Pull) -> None:
        """Compute y from y+, and dL/dz; lam is the whole of dL/dy+."""
        given, plan = self._given, self._given.trajectory.plans[n]
        tableau, ends = given.problem.tableau, (plan.open_start, plan.open_end)
        step = Step(given.field, tableau, plan.t, plan.h, plan.t_end, self._z, open_ends=ends)
        moved = advance(self._y, -plan.h, tableau.terms.b, step.evaluate(tableau.stages))
        if given.values is not None and n == len(given.trajectory.plans) - 1:
            given.values.compare_last_value(tableau.stages - 1, step.ks[tableau.stages - 1])
        self._y = moved.sub_(self._z).mul_(1.0 / self._coupling).add_(self._z)
        if n == 0:
            self._check.settle(self._y, step.ks[0])
        found = transpose_step(given.field, step, lam, NO_OUTPUTS, pull, with_time=given.t is not None)
        bars.t_bar, bars.h_bar = bars.t_bar + found.t_bar, bars.h_bar + found.h_bar
        of_lam = lam * (1.0 - self._coupling)
        term = _sum(found.y_terms)
        self._z_bar = of_lam.clone() if self._z_bar is None else self._z_bar.add_(of_lam)
        if term is not None:
            self._z_bar.add_(term)
        bars.y_terms.append(of_lam.neg_())


def _sum(terms: list[Tensor]) -> Tensor | None:
    """Return the sum of the terms, freeing each as it is added; None without terms."""
    total = RunningSum()
    while terms:
        total.add(terms.pop())
    return total.value
