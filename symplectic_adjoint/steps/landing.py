"""Steps without dense output, which end on every output."""

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.steps.runge_kutta import Step


class LandingStep(Step):
    """A step other than a Runge-Kutta step, whose only possible output (at an event, say) is at its end."""

    __slots__ = ()

    def output(self, sigma: Time) -> Tensor:
        """Return y+, since sigma is 1 up to rounding; a differentiable sigma moves it along f."""
        if not isinstance(sigma, Tensor):
            return self.end()
        return torch.add(self.end(), self.slope(1.0) * ((sigma - 1.0) * self.h).to(self.y))

    def most_outputs_at_once(self) -> int:
        """Return 1."""
        return 1

    def slope(self, sigma: float) -> Tensor:
        """Return f at the end of the step; sigma must be 1."""
        assert sigma == 1.0
        return self.f(self.time_of_end(), self.end())
