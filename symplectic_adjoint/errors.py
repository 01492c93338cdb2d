"""The errors and warnings of the library. Errors of a solve that fails numerically derive from SolverError."""

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class InvalidTableau(ValueError):
    """A Butcher tableau is inconsistent: for example, a row does not sum to c, or the weights do not sum to 1."""


class UnsupportedCombination(ValueError):
    """Two arguments that are valid individually but do not work together."""


class NotCapturable(UnsupportedCombination):
    """capture=True was given, and func does what no captured program can repeat."""


class CompilerNotFound(RuntimeError):
    """compile=True was given, but no C++ compiler was found."""


class OffloadError(OSError):
    """A tensor could not be kept on disk: the folder is unusable or full."""


class BudgetTooSmall(ValueError):
    """memory_budget is less than least_bytes, the least memory that the solve and its gradient need."""

    def __init__(self, message: str, least_bytes: int):
        super().__init__(message)
        self.least_bytes = least_bytes


class LostGradient(ValueError):
    """func uses a tensor whose gradient would be lost, usually one that the solver does not know as a parameter."""


@dataclass(frozen=True)
class Place:
    """A place in the state: the part of a structured state (None if y0 is one tensor) and the index in that part."""

    part: str | None
    component: tuple[int, ...]

    @property
    def sample(self) -> int | None:
        """Index along the first dimension, usually the batch; None for a state of fewer than two dimensions."""
        return self.component[0] if len(self.component) > 1 else None

    def __str__(self) -> str:
        return f"component {self.component}" + ("" if self.part is None else f" of y{self.part}")


class SolverError(RuntimeError):
    """A solve could not be finished.

    t: the time reached. step_size: the signed size of the last step tried. accepted, rejected: the steps so far.
    f_calls: the calls of func so far. part, component, sample: the worst place in the state (see Place), None if
    unknown. state: the last accepted state in y0's structure, detached.
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


class StageNotSolved(SolverError):
    """The equations of an implicit stage, or of its transpose, were not solved: shorter steps may help."""


class StepSizeUnderflow(SolverError):
    """The steps needed are too small to advance time in float64."""


class TooManySteps(SolverError):
    """max_num_steps steps were tried before the last time was reached, or a fixed grid has more steps than that."""


class ReversalError(SolverError):
    """A reversible solve, reversed step by step, did not return to y0, or a second solve missed the outputs."""


class FunctionChanged(SolverError):
    """func is not the function that the forward pass solved: something that it reads changed between the passes.

    t: the time at which another value was found, and difference: the largest difference, relative to the value. None if
    the change was found without calling func.
    """

    def __init__(self, message: str, t: float | None = None, difference: float | None = None):
        super().__init__(message)
        self.t, self.difference = t, difference


class EventNotFound(SolverError):
    """The event function did not change sign before the solve had to stop."""


class IgnoredArgumentWarning(UserWarning):
    """An argument that torchdiffeq takes was accepted, and has no effect in this solve."""


class NotReplacedWarning(UserWarning):
    """Code uses torchdiffeq itself although replace_torchdiffeq() was called."""


class StepControlOffWarning(UserWarning):
    """An option turned step control off where torchdiffeq ignores the option and stays adaptive."""


class ResolutionWarning(UserWarning):
    """A tolerance is below what the dtype of y0 or of func's values resolves: the solve is as accurate as that."""


class RecordedAnewWarning(UserWarning):
    """capture=True records programs anew in every solve, which takes longer than it saves."""


class StiffnessWarning(UserWarning):
    """Most steps of an explicit solve were limited by the stability of the method, not by the tolerance."""


class NoiseWarning(UserWarning):
    """func returns slightly different values for the same arguments: the gradient is as inexact as func."""


_given: set[tuple[type[Warning], str]] = set()


def warn_once(category: type[Warning], subject: str, message: str) -> None:
    """Give a warning at the line that called the library, unless this process had one of this category and subject.

    A warning that a filter turns into an error does not count as given.
    """
    if (category, subject) in _given:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
    _given.add((category, subject))


def forget_warnings() -> None:
    """Let warnings that are given once a process be given once more, as tests of them need."""
    _given.clear()


def told_apart(*numbers: float) -> list[str]:
    """Return the numbers as text, with six digits or, if equal texts would stand for unequal numbers, with more."""
    texts = [f"{x:g}" for x in numbers]
    for digits in range(7, 18):
        if len(set(texts)) == len(set(numbers)):
            break
        texts = [f"{x:.{digits}g}" for x in numbers]
    return texts


def bare(name: str) -> str:
    """Return a name without case, hyphens, underscores and spaces, in which spellings of one name differ."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


LIKENESS = 0.6
"""The least ratio of difflib's that makes a name close, as in difflib.get_close_matches."""


def did_you_mean(name: Any, known: Iterable[str], also_called: Mapping[str, str] | None = None) -> str:
    """Return ", did you mean 'x'?" for the closest known name, or an empty string if none is close.

    also_called: names used elsewhere, each with the known name of the same thing. Of equally close names the first
    counts.
    """
    spellings: dict[str, str] = {}
    for spelling, meant in (*((one, one) for one in known), *(also_called or {}).items()):
        spellings.setdefault(bare(spelling), meant)
    matcher = difflib.SequenceMatcher(b=bare(str(name)))

    def likeness(spelling: str) -> float:
        matcher.set_seq1(spelling)
        return matcher.ratio()

    near = max(spellings, key=likeness, default="")
    return f", did you mean {spellings[near]!r}?" if near and likeness(near) >= LIKENESS else ""
