"""A step of any explicit Runge-Kutta method, made reversible by a second state z carried alongside y.

    y+ = C y + (1 - C) z + P(t, z; h),   z+ = z - P(t + h, y+; -h),   P(t, y; h) = h sum_i b_i k_i

McCallum and Foster, Efficient, Accurate and Stable Gradients for Neural ODEs (2024, arXiv:2410.11648); C is their
coupling parameter lambda, and initially z = y. The inverse step starts from the end:

    z = z+ + P(t + h, y+; -h),   y = (y+ - (1 - C) z - P(t, z; h)) / C
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.landing import LandingStep
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step, advance, combine


class CoupledStep(LandingStep):
    """One step of the pair (y, z).

    Stages start from z; k_1 may be known. z+ is computed from y+, when first needed.
    """

    __slots__ = ("_coupling", "_z_end", "z")

    def __init__(
        self,
        f: RightHandSide,
        tableau: ButcherTableau,
        t: Time,
        h: Time,
        t_end: Time,
        y: Tensor,
        ks: Sequence[Tensor] = (),
        end: Tensor | None = None,
        open_ends: tuple[bool, bool] = (False, False),
        companion: Tensor | None = None,
        *,
        coupling: float,
    ):
        super().__init__(f, tableau, t, h, t_end, y, ks, end, open_ends)
        self._coupling, self.z = coupling, y if companion is None else companion
        self._z_end: Tensor | None = None

    def state(self, i: int) -> Tensor:
        """Return Y_i, which starts from z. Row s, which some error estimates need, is the Runge-Kutta step of z."""
        if i == self.tableau.stages:
            return advance(self.z, self.h, self.tableau.terms.b, self.ks)
        return combine(self.z, self.h, self.tableau.terms.A[i], self.ks)

    def end(self) -> Tensor:
        """Return y+."""
        if self._end is None:
            ks = self.evaluate(self.tableau.stages)
            self._refuse_overwritten()
            between = torch.add(self.z, self.y - self.z, alpha=self._coupling)
            self._end = advance(between, self.h, self.tableau.terms.b, ks)
        return self._end

    def end_companion(self) -> Tensor:
        """Return z+, which takes s more f calls."""
        if self._z_end is None:
            back = reversed_step(self.f, self.tableau, self.t, self.h, self.t_end, self.end(), self.open_ends)
            self._z_end = advance(self.z, self.h, self.tableau.terms.b, back.evaluate(self.tableau.stages))
        return self._z_end

    def end_slope(self) -> None:
        """Return None: f is not called at (t + h, z+)."""


def reversed_step(
    f: RightHandSide,
    tableau: ButcherTableau,
    t: Time,
    h: Time,
    t_end: Time,
    y_end: Tensor,
    open_ends: tuple[bool, bool],
) -> Step:
    """Return the step of -h from (t_end, y+), whose stages give z+."""
    return Step(f, tableau, t_end, -h, t, y_end, open_ends=(open_ends[1], open_ends[0]))
