"""The kind of step that a method takes: a fact of its tableau."""

from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.coupled import CoupledStep
from symplectic_adjoint.steps.implicit import ImplicitStep
from symplectic_adjoint.steps.runge_kutta import Step


def step_of(tableau: ButcherTableau) -> type[Step]:
    """Return the kind of step that a method takes."""
    if tableau.coupled:
        return CoupledStep
    return ImplicitStep if tableau.implicit else Step
