"""The time at which func stops being finite, which adaptive steps approach and may not be able to pass."""

import math

from symplectic_adjoint.errors import NonFiniteError
from symplectic_adjoint.solve.grid import FREE, StepPlan

PATIENCE = 3
"""Failures on a pin after which steps go most of the way to it, instead of some of it."""

LEAST = 2.0**-64
"""The size, over that of the first failure, at which steps give up. Only near t = 0 can steps be that small."""


class Barrier:
    """The non-finite steps since the last time that is known to be passable.

    A long step may fail where shorter ones pass, by an overflow for example, so a failure says little. A field such as
    (1 - y) / (1 - t) fails in every step that ends on t = 1, however short.
    """

    def __init__(self, plan: StepPlan):
        self._direction = math.copysign(1.0, plan.h)
        self._first_size = self._size = abs(plan.h)
        self._nearest = plan.t_end
        self._on_pin = 0
        self.failure: NonFiniteError | None = None
        """The error of the last step that is not finite; None once a step was accepted after it."""

    def meet(self, plan: StepPlan, error: NonFiniteError) -> None:
        """Note a step that is not finite."""
        self._size, self.failure = abs(plan.h), error
        if self._direction * (plan.t_end - self._nearest) < 0.0:
            self._nearest = plan.t_end
        self._on_pin += plan.pinned_to != FREE

    def is_passed(self, t: float) -> bool:
        """Return whether steps have reached a time at which one has failed."""
        return self._direction * (t - self._nearest) >= 0.0

    @property
    def is_final(self) -> bool:
        """Whether steps became so short that no step passes."""
        return self._size <= LEAST * self._first_size

    def retry(self, plan: StepPlan, size: float) -> float:
        """Return the size of the next step instead of `size`: after repeated failures on a pin, nearly up to it.

        The steps before such a pin succeed; cautious ones would only take long to show that none reaches it.
        """
        return 0.9 * abs(plan.h) if plan.pinned_to != FREE and self._on_pin > PATIENCE else size


def final_error(failure: NonFiniteError, h: float) -> NonFiniteError:
    """Return the error for steps down to h that all failed in this way."""
    return NonFiniteError(
        f"{failure}; shorter steps, down to {abs(h):.3g}, did not avoid it: if func has a singularity there, end the "
        "solve before it",
        failure.place,
    )
