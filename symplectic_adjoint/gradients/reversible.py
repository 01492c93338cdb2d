"""A reversible wrap of any explicit method, undone step by step: memory that does not grow with the steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.reversal import LastPair, check_undone, landed
from symplectic_adjoint.backward.running_sum import RunningSum
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.field import Pull
from symplectic_adjoint.steps.reversible import CoupledStep, reversed_step
from symplectic_adjoint.steps.runge_kutta import MakeStep, Step, combine
from symplectic_adjoint.steps.transpose import OutputCotangent, StepCotangents, transpose_step


@dataclass(frozen=True)
class Reversible:
    """McCallum and Foster (2024, arXiv:2410.11648): the method's steps, coupled in pairs (coupled_step.py).

    Of the method's own order, but other steps than its own: ys differ from those of other gradients by an error of the
    tolerance. Steps end on every output. Exact for the steps taken, as far as undoing them gives the states back:
    rounding grows as it does in a solve backwards in time, and by 1 / coupling a step. Memory (2 + s) D + A besides the
    outputs, however many steps; 2 s f calls a step, 4 s on the way back, half of either in the last step.
    coupling: above 0 and below 1, how little of z a step mixes into y. Smaller is stabler forwards.
    """

    coupling: float = 0.999
    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.coupling, bool) or not isinstance(self.coupling, float) or not 0.0 < self.coupling < 1.0:
            raise ValueError(f"Reversible(coupling=...) must be a number between 0 and 1, got {self.coupling!r}")

    @property
    def make_step(self) -> MakeStep:
        return partial(CoupledStep, coupling=self.coupling)

    def keeper(self, given: ForwardPass) -> LastPair:
        del given
        return LastPair(attrgetter("z"))

    def backward(self, given: BackwardPass) -> Gradients:
        return sweep(given, _Undone(given, self.coupling).pull_back)


class _Undone:
    """The pair (y, z) at the end of the step to come, and dL/dz there; y's cotangent is the sweep's lam.

    Of the last step it is z at the start that is known: at its end nothing depends on z.
    """

    def __init__(self, given: BackwardPass, coupling: float):
        self._given, self._coupling = given, coupling
        self._z = given.kept.pop() if given.kept else given.y0
        self._y = given.kept.pop() if given.kept else given.y0
        self._z_bar: Tensor | None = None

    @torch.no_grad()
    def pull_back(self, n: int, lam: Tensor, outputs: Sequence[OutputCotangent], pull: Pull) -> StepCotangents:
        lam, bars = landed(self._given, n, self._y, lam, outputs)
        if self._z_bar is not None:
            lam = self._undo_z(n, lam, bars, pull)
        self._undo_y(n, lam, bars, pull)
        assert self._z_bar is not None
        if n == 0:
            check_undone(self._given, self._y)
            bars.y_terms.append(self._z_bar)  # z began as y_0
        return bars

    def _undo_z(self, n: int, lam: Tensor, bars: StepCotangents, pull: Pull) -> Tensor:
        """z from z+; returns lam with what y+ had to do with z+."""
        given, plan = self._given, self._given.trajectory.plans[n]
        tableau, ends = given.problem.tableau, (plan.open_start, plan.open_end)
        assert self._z_bar is not None
        back = reversed_step(given.field, tableau, plan.t, plan.h, plan.t_end, self._y, ends)
        self._z = combine(self._z, -plan.h, tableau.terms.b, back.evaluate(tableau.stages))
        found = transpose_step(given.field, back, -self._z_bar, (), pull, with_time=given.t is not None)
        bars.t_bar = bars.t_bar + found.t_bar
        bars.h_bar = bars.h_bar + found.t_bar - found.h_bar  # from t + h by -h
        term = _sum(found.y_terms)
        if term is None:
            return lam
        bars.y_terms.append(term)
        return lam + term

    def _undo_y(self, n: int, lam: Tensor, bars: StepCotangents, pull: Pull) -> None:
        """y from y+, and dL/dz; lam is all of dL/dy+."""
        given, plan = self._given, self._given.trajectory.plans[n]
        tableau, ends = given.problem.tableau, (plan.open_start, plan.open_end)
        there = Step(given.field, tableau, plan.t, plan.h, plan.t_end, self._z, open_ends=ends)
        moved = combine(self._y, -plan.h, tableau.terms.b, there.evaluate(tableau.stages))
        self._y = moved.sub_(self._z).mul_(1.0 / self._coupling).add_(self._z)
        found = transpose_step(given.field, there, lam, (), pull, with_time=given.t is not None)
        bars.t_bar, bars.h_bar = bars.t_bar + found.t_bar, bars.h_bar + found.h_bar
        of_lam = lam * (1.0 - self._coupling)
        term = _sum(found.y_terms)
        self._z_bar = of_lam.clone() if self._z_bar is None else self._z_bar.add_(of_lam)
        if term is not None:
            self._z_bar.add_(term)
        bars.y_terms.append(of_lam.neg_())


def _sum(terms: list[Tensor]) -> Tensor | None:
    """The sum of the terms, each of which is let go as it is added."""
    total = RunningSum()
    while terms:
        total.add(terms.pop())
    return total.value
