"""Asynchronous leapfrog as a tableau. It is no entry of METHODS: its k_1 is a slope that the step carries."""

from fractions import Fraction
from functools import cache

from symplectic_adjoint.methods.tableau import ButcherTableau

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


def damping(tableau: ButcherTableau) -> float:
    """Return eta, the damping coefficient of a tableau made by `leapfrog`."""
    return tableau.floats.b[1]
