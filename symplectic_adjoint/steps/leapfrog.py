"""Asynchronous leapfrog: a step that carries a slope v beside y, and that can be undone.

    y_half = y + h/2 v,   u = f(t + h/2, y_half),   v+ = v + 2 eta (u - v),   y+ = y_half + h/2 v+

Zhuang, Dvornek, Tatikonda and Duncan, MALI (ICLR 2021, arXiv:2102.04668), with v = f(t_0, y_0) in the beginning and
eta = 1 unless it is damped. Undone, with f called at the same point:

    y_half = y+ - h/2 v+,   v = (v+ - 2 eta u) / (1 - 2 eta),   y = y_half - h/2 v
"""

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.landing import LandingStep

NAME = "alf"
"""What the method is called."""


@cache
def leapfrog(eta: float) -> ButcherTableau:
    """A step as that of a two-stage method whose k_1 is v: y+ = y + h ((1 - eta) v + eta u).

    Its error estimate is the difference from a step along v alone.
    """
    eta_exactly, half = Fraction(eta), Fraction(1, 2)
    return ButcherTableau(
        name=NAME,
        order=2 if eta == 1.0 else 1,
        A=((), (half,)),
        b=(1 - eta_exactly, eta_exactly),
        c=(Fraction(0), half),
        b_error=(-eta_exactly, eta_exactly),
        error_order=1,
        source="Mutze, arXiv:1311.6602; with damping eta, Zhuang et al., arXiv:2102.04668",
    )


class LeapfrogStep(LandingStep):
    """A step of `leapfrog`, k_1 being v; what it hands on as the next step's k_1 is v+."""

    __slots__ = ("_v_end",)

    def end_slope(self) -> Tensor:
        """v+, which takes the place of f at the step's end."""
        if not hasattr(self, "_v_end"):
            v, u = self.evaluate(self.tableau.stages)[:2]
            self._v_end = torch.add(v, u - v, alpha=2.0 * damping(self.tableau))
        return self._v_end


def damping(tableau: ButcherTableau) -> float:
    """eta."""
    return tableau.floats.b[1]
