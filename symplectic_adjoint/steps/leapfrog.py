"""Asynchronous leapfrog: a reversible step that carries a slope v alongside y.

    y_half = y + h/2 v,   u = f(t + h/2, y_half),   v+ = v + 2 eta (u - v),   y+ = y_half + h/2 v+

Zhuang, Dvornek, Tatikonda and Duncan, MALI (ICLR 2021, arXiv:2102.04668). Initially v = f(t_0, y_0); eta = 1 means no
damping. The inverse step calls f at the same point:

    y_half = y+ - h/2 v+,   v = (v+ - 2 eta u) / (1 - 2 eta),   y = y_half - h/2 v
"""

import torch
from torch import Tensor

from symplectic_adjoint.methods.leapfrog import damping
from symplectic_adjoint.steps.landing import LandingStep


class LeapfrogStep(LandingStep):
    """A step of `leapfrog`: its k_1 is v, and it passes v+ to the next step as k_1."""

    __slots__ = ("_v_end",)

    def end_slope(self) -> Tensor:
        """Return v+, which replaces f at the end of the step."""
        if not hasattr(self, "_v_end"):
            v, u = self.evaluate(self.tableau.stages)[:2]
            self._v_end = torch.add(v, u - v, alpha=2.0 * damping(self.tableau))
        return self._v_end
