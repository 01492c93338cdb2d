"""A step that has no dense output: outputs are where it ends."""

import torch
from torch import Tensor

from symplectic_adjoint.field.times import Time
from symplectic_adjoint.steps.runge_kutta import Step


class LandingStep(Step):
    """A step of another kind than Runge-Kutta, with an output at its end at most (an event's, for one)."""

    __slots__ = ()

    def output(self, sigma: Time) -> Tensor:
        """y+, sigma being 1 but for rounding; where times are differentiated it moves along f with sigma."""
        if not isinstance(sigma, Tensor):
            return self.end()
        return torch.add(self.end(), self.slope(1.0) * ((sigma - 1.0) * self.h).to(self.y))

    def slope(self, sigma: float) -> Tensor:
        """f at the end of the step."""
        assert sigma == 1.0
        return self.f(self.time_of_end(), self.end())
