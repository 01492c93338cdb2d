"""The kind of step that a method takes, and what makes one."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.coupled import CoupledStep
from symplectic_adjoint.steps.implicit import ImplicitStep
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


def step_of(tableau: ButcherTableau) -> type[Step]:
    """Return the kind of step that a method takes."""
    if tableau.coupled:
        return CoupledStep
    return ImplicitStep if tableau.implicit else Step


class MakeStep(Protocol):
    """A function that makes a step from what the previous step passes on, such as Step itself."""

    def __call__(
        self,
        f: RightHandSide,
        tableau: ButcherTableau,
        t: Time,
        h: Time,
        t_end: Time,
        y: Tensor,
        ks: Sequence[Tensor],
        /,
        *,
        open_ends: tuple[bool, bool],
        companion: Tensor | None,
    ) -> Step: ...
