"""What can go wrong, by name. Everything a solve raises about its numbers derives from SolverError."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class InvalidTableau(ValueError):
    """A Butcher tableau contradicts itself: rows that do not sum to c, weights that do not sum to 1."""


class UnsupportedCombination(ValueError):
    """Two arguments that are each valid and cannot be used together."""


class CompilerNotFound(RuntimeError):
    """compile=True, and there is no C++ compiler."""


class OffloadError(OSError):
    """What was to be kept on disk could not be written there."""


class BudgetTooSmall(ValueError):
    """memory_budget is less than the least that the solve and its gradient can do with, least_bytes."""

    def __init__(self, message: str, least_bytes: int):
        super().__init__(message)
        self.least_bytes = least_bytes


class LostGradient(ValueError):
    """func uses a tensor that requires a gradient and that the solver was not told about."""


@dataclass(frozen=True)
class Place:
    """Where in the state a number stands: the part of a structured state (None for a tensor) and the index in it."""

    part: str | None
    component: tuple[int, ...]

    @property
    def sample(self) -> int | None:
        """Index along the first dimension, where there is more than one: the batch in most fields."""
        return self.component[0] if len(self.component) > 1 else None

    def __str__(self) -> str:
        return f"component {self.component}" + ("" if self.part is None else f" of y{self.part}")


class SolverError(RuntimeError):
    """A solve could not be finished.

    t: time that was reached. step_size: of the last step that was tried, signed. accepted, rejected: steps so far.
    f_calls: calls of func so far. part, component, sample: the worst place in the state (see Place); None where
    unknown. state: the last accepted state, like y0, detached.
    """

    t: float | None = None
    step_size: float | None = None
    accepted: int = 0
    rejected: int = 0
    f_calls: int = 0
    state: Any = None

    def __init__(self, message: str, place: Place | None = None):
        super().__init__(message)
        self.place = place

    @property
    def part(self) -> str | None:
        return None if self.place is None else self.place.part

    @property
    def component(self) -> tuple[int, ...] | None:
        return None if self.place is None else self.place.component

    @property
    def sample(self) -> int | None:
        return None if self.place is None else self.place.sample


class NonFiniteError(SolverError):
    """NaN or infinity in a state or in func's output."""


class StepSizeUnderflow(SolverError):
    """The tolerance asks for steps too small to advance the time in float64."""


class TooManySteps(SolverError):
    """`max_num_steps` attempts were made before the last time was reached."""


class ReversalError(SolverError):
    """A reversible solve, undone step by step, did not come back to where it had started."""


class EventNotFound(SolverError):
    """The event function did not change sign before the solve had to stop."""


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the nearest known name, an empty text where none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean {near[0]!r}?" if near else ""
