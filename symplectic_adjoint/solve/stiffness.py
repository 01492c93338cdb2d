"""Whether the steps of an explicit solve are limited by the stability of the method."""

import math

import torch
from torch import Tensor

from symplectic_adjoint.errors import StiffnessWarning, warn_once
from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.runge_kutta import Step, weighted_sum

EVERY = 50
"""Accepted steps from one test to the next. A test of a problem that is not stiff mostly takes one sample, so most
solves take none, and the others pay less than 0.2 % of their steps' time."""

STIFF, NOT_STIFF = 15, 6
"""A test finds stiffness in its 15th sample near the bound, and none in 6 others in a row, as in Hairer's dopri5."""

NEAR = 0.8
"""The part of the bound from which h rho counts as limited by it. Step control overshoots the bound, so that accepted
steps of stiff problems lie between 0.85 and 1.2 of it, and those of others mostly below 0.5."""


class StiffnessTest:
    """The test of Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.2.

    From two stages at the same time, of a step of size h, it estimates h rho, where rho is the size of the largest
    eigenvalue of df/dy near the solution: |k_i - k_j| / |Y_i - Y_j| = h |k_i - k_j| / |h sum_l (a_il - a_jl) k_l|. It
    calls func no more, and both norms are read with those of the error. Captured programs that measure the error leave
    no stages to sample.

    found_at: the time of the step in which stiffness was first found, None before. sample: what was read of the last
    step that was tried, None if nothing was.
    """

    def __init__(self, tableau: ButcherTableau):
        self.found_at: float | None = None
        self.sample: tuple[float, ...] | None = None
        self._tableau = tableau
        self._accepted = 0
        self._tests = self._stiff_tests = 0
        self._near: list[float] = []
        """The values of h rho in the running test that are near the bound."""
        self._others = 0
        self._found_h_rho = math.nan

    @property
    def is_due(self) -> bool:
        """Whether the next step is sampled."""
        return bool(self._near) or (self._accepted > 0 and self._accepted % EVERY == 0 and self._is_possible)

    @property
    def _is_possible(self) -> bool:
        return bool(self._tableau.stability.states)

    def norms(self, step: Step) -> list[Tensor]:
        """Return two norms whose quotient estimates h rho in a step whose error is known."""
        stability = self._tableau.stability
        with without_graph():
            sums = [
                weighted_sum(1.0, [(weight, step.ks[j]) for j, weight in terms])
                for terms in (stability.slopes, stability.states)
            ]
            return [torch.linalg.vector_norm(x) for x in sums if x is not None]

    def accept(self, t: float) -> None:
        """Count an accepted step from t, and its sample if it was taken."""
        self._accepted += 1
        sample, self.sample = self.sample, None
        if sample is None:
            return
        if not self._near:
            self._tests += 1
            self._others = 0
        slopes, states = sample
        h_rho = slopes / states if states > 0.0 else math.nan
        if not NEAR * self._tableau.stability.bound <= h_rho < math.inf:
            self._others += 1
            if self._others == NOT_STIFF:
                self._near.clear()
            return
        self._near.append(h_rho)
        self._others = 0
        if len(self._near) == STIFF:
            self._stiff_tests += 1
            if self.found_at is None:
                self.found_at, self._found_h_rho = t, sum(self._near) / STIFF
            self._near.clear()

    @property
    def found(self) -> str | None:
        """What was found and what to do, for an error or a warning; None if it was not found."""
        if self.found_at is None:
            return None
        return (
            f"At t = {self.found_at:.9g} steps were limited by the stability of {self._tableau.name}, not by rtol and "
            f"atol (h rho = {self._found_h_rho:.3g} against a bound of {self._tableau.stability.bound:.3g}, where rho "
            'is the size of the largest eigenvalue of df/dy): the problem is stiff there; try method="kvaerno5" or '
            '"trbdf2", which are implicit'
        )

    def warn(self) -> None:
        """Warn, once a process and method, if a long solve was limited so: in two tests, and in most of them."""
        if self.found is not None and self._stiff_tests > max(1, self._tests // 2):
            warn_once(StiffnessWarning, self._tableau.name, self.found)
