"""Asynchronous leapfrog, reversed step by step in the backward pass: memory independent of the number of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from symplectic_adjoint.backward.reversal import FinalPair, ReversalCheck, pull_back_end_outputs
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.backward.sweep import sweep
from symplectic_adjoint.field.linearization import Pull
from symplectic_adjoint.methods.leapfrog import damping, leapfrog
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.kind import MakeStep
from symplectic_adjoint.steps.leapfrog import LeapfrogStep
from symplectic_adjoint.steps.output_cotangents import OutputCotangents
from symplectic_adjoint.steps.transpose import StepCotangents, inner


@dataclass(frozen=True)
class Mali(Strategy):
    """Solve by asynchronous leapfrog and reverse its steps: MALI (Zhuang et al., ICLR 2021, arXiv:2102.04668).

    The method (steps/leapfrog.py) is its own, of order 2, so ys differ from those of other methods at the same
    tolerances. Steps are adaptive or fixed, and end on every output. The gradient is exact for these steps, as far as
    reversing them restores the states: rounding errors grow as in a solve backwards in time. Memory 2 D + A besides the
    outputs, whatever the number of steps; 1 f call per step in each pass, and 1 more at the start.

    eta: the damping coefficient, 1/2 < eta <= 1, where 1 means no damping. Damping makes the method stable but of order
    1, and reversing it amplifies rounding errors by 1 / |1 - 2 eta| per step. Raises ValueError for any other eta.
    """

    also_called: ClassVar[tuple[str, ...]] = ("alf",)
    crosses_jumps: ClassVar[bool] = False  # the slope v would be carried over the jump

    eta: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.eta, bool) or not isinstance(self.eta, int | float) or not 0.5 < self.eta <= 1.0:
            raise ValueError(f"Mali(eta=...) must be a number above 1/2 and at most 1, got {self.eta!r}")

    @property
    def own_tableau(self) -> ButcherTableau:
        return leapfrog(float(self.eta))

    @property
    def make_step(self) -> MakeStep:
        return LeapfrogStep

    def memory_formula(self) -> str:
        return "2 D + A"

    def keeper(self, given: ForwardPass) -> FinalPair:
        del given
        return FinalPair(LeapfrogStep.end_slope)

    def backward(self, given: BackwardPass) -> Gradients:
        return sweep(given, _LeapfrogReversal(given).pull_back)


class _LeapfrogReversal:
    """The pair (y, v) at the end of the next step to reverse, and dL/dv there; dL/dy is the sweep's lam."""

    def __init__(self, given: BackwardPass):
        self._given = given
        self._eta = damping(given.problem.tableau)
        self._v = given.kept.pop() if given.kept else given.y0
        self._y = given.kept.pop() if given.kept else given.y0
        self._v_bar: Tensor | None = None
        self._check = ReversalCheck(given, self._y)
        self._later: tuple[float, Tensor | None] | None = None
        """h and (df/dy)^T dL/du of the step reversed last, for _through_slope."""

    @torch.no_grad()
    def pull_back(self, n: int, lam: Tensor, outputs: OutputCotangents, pull: Pull) -> StepCotangents:
        given, plan, eta = self._given, self._given.trajectory.plans[n], self._eta
        h, with_time = plan.h, given.t is not None
        lam, bars = pull_back_end_outputs(given, n, self._y, lam, outputs)
        v_bar = lam * (0.5 * h) if self._v_bar is None else self._v_bar.add_(lam, alpha=0.5 * h)
        v_lam = inner(self._v, lam) if with_time else 0.0
        self._y = torch.add(self._y, self._v, alpha=-0.5 * h)  # y_half
        linearization = given.field.linearize(plan.t + 0.5 * h, self._y, with_time=with_time, with_value=True)
        assert linearization.k is not None
        if given.values is not None and n == len(given.trajectory.plans) - 1:
            given.values.compare_last_value(1, linearization.k, self._y)
        self._v, linearization.k = torch.sub(self._v, linearization.k, alpha=2.0 * eta).div_(1.0 - 2.0 * eta), None
        y_bar, *tau = given.field.transpose(linearization, v_bar.mul_(2.0 * eta), pull)  # v_bar is dL/du from here on
        if self._check.samples(n):
            self._check.see(self._y, [v_bar / h], lam + self._through_slope(h, y_bar), h)
        self._later = (h, y_bar) if self._check.samples(n - 1) else None
        if y_bar is not None:
            bars.y_terms.append(y_bar)
            lam = lam + y_bar
        self._v_bar = v_bar.mul_((1.0 - 2.0 * eta) / (2.0 * eta)).add_(lam, alpha=0.5 * h)
        if with_time:
            t_bar = _as_float64(tau)
            bars.t_bar = bars.t_bar + t_bar
            bars.h_bar = bars.h_bar + 0.5 * (v_lam + inner(self._v, lam) + t_bar)
        self._y.add_(self._v, alpha=-0.5 * h)
        if n == 0:
            self._pull_back_start(bars, pull)
        return bars

    def _through_slope(self, h: float, y_bar: Tensor | None) -> Tensor | float:
        """Return (df/dy)^T dL/dv at the end of a step: along a solution v follows y, and dL/dy grows by it.

        y_bar is the (df/dy)^T dL/du of the step. That of the step after it is another combination of the same two
        terms, (df/dy)^T dL/dv and (df/dy)^T dL/dy, if df/dy has hardly changed. dL/dv is zero at the end of the last.
        """
        if self._later is None:
            return 0.0
        later_h, later_bar = self._later
        own = 0.0 if y_bar is None else y_bar * later_h
        later = 0.0 if later_bar is None else later_bar * ((2.0 * self._eta - 1.0) * h)
        return (own - later) / (2.0 * self._eta * (h + later_h))

    def _pull_back_start(self, bars: StepCotangents, pull: Pull) -> None:
        """Pull dL/dv back through v = f(t_0, y_0) at the start, and check that the reversal returned to y0."""
        given, with_time = self._given, self._given.t is not None
        time = given.problem.step(given.field, given.trajectory.plans[0], given.y0).time(0)
        linearization = given.field.linearize(time, given.y0, with_time=with_time, with_value=given.values is not None)
        if given.values is not None and linearization.k is not None:
            given.values.compare_first_value(linearization.k)
            linearization.k = None
        self._check.settle(self._y, self._v)
        assert self._v_bar is not None
        y0_bar, *tau = given.field.transpose(linearization, self._v_bar, pull)
        if y0_bar is not None:
            bars.y_terms.append(y0_bar)
        if with_time:
            bars.t_bar = bars.t_bar + _as_float64(tau)


def _as_float64(tau: Sequence[Tensor | None]) -> Tensor | float:
    """Return tau in float64, 0 if f does not depend on t."""
    return tau[0].double() if tau and tau[0] is not None else 0.0
