"""Asynchronous leapfrog: a reversible step that carries a slope v alongside y.

    y_half = y + h/2 v,   u = f(t + h/2, y_half),   v+ = v + 2 eta (u - v),   y+ = y_half + h/2 v+

Zhuang, Dvornek, Tatikonda and Duncan, MALI (ICLR 2021, arXiv:2102.04668). Initially v = f(t_0, y_0); eta = 1 means no
damping. The inverse step calls f at the same point:

    y_half = y+ - h/2 v+,   v = (v+ - 2 eta u) / (1 - 2 eta),   y = y_half - h/2 v
"""

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.landing import LandingStep

NAME = "alf"
"""The name of the method."""


@cache
def leapfrog(eta: float) -> ButcherTableau:
    """Return leapfrog as a two-stage tableau with k_1 = v: y+ = y + h ((1 - eta) v + eta u).

    The error estimate is the difference from a step along v alone.
    """
    exact_eta, half = Fraction(eta), Fraction(1, 2)
    return ButcherTableau(
        name=NAME,
        order=2 if eta == 1.0 else 1,
        A=((), (half,)),
        b=(1 - exact_eta, exact_eta),
        c=(Fraction(0), half),
        b_error=(-exact_eta, exact_eta),
        error_order=1,
        source="Mutze, arXiv:1311.6602; with damping eta, Zhuang et al., arXiv:2102.04668",
    )


class LeapfrogStep(LandingStep):
    """A step of `leapfrog`: its k_1 is v, and it passes v+ to the next step as k_1."""

    __slots__ = ("_v_end",)

    def end_slope(self) -> Tensor:
        """Return v+, which replaces f at the end of the step."""
        if not hasattr(self, "_v_end"):
            v, u = self.evaluate(self.tableau.stages)[:2]
            self._v_end = torch.add(v, u - v, alpha=2.0 * damping(self.tableau))
        return self._v_end


def damping(tableau: ButcherTableau) -> float:
    """Return eta, the damping coefficient of a tableau made by `leapfrog`."""
    return tableau.floats.b[1]
