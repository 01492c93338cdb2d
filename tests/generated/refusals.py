"""The errors that a generated case may end in: by name, of which cases, and as which exceptions."""

from collections.abc import Callable
from dataclasses import dataclass

from symplectic_adjoint import errors
from tests.generated.case import is_implicit
from tests.generated.closures import CLOSURES

FUNCTION_CHANGED = "FunctionChanged"


@dataclass(frozen=True)
class Refusal:
    """A kind of case that may be refused, the names of its exceptions, and what their message must say."""

    applies: Callable
    exceptions: tuple[str, ...]
    says: str = ""


def content_turned(case):
    """Return whether something changes that func reads and that is neither its own, nor a cell, nor a global."""
    return case.change == "turned" and CLOSURES[case.closure].content and case.gradient != "backprop"


REFUSALS = {
    "content of an object or container changed": Refusal(
        content_turned, (FUNCTION_CHANGED, "RuntimeError"), "chang|modified by an inplace"
    ),
    "own tensor changed in place": Refusal(
        lambda case: case.change == "own step", ("RuntimeError", FUNCTION_CHANGED), "chang|modified by an inplace"
    ),
    "own tensor's data assigned": Refusal(
        lambda case: case.change == "data assigned", ("RuntimeError", FUNCTION_CHANGED), "chang|assign|modified"
    ),
    "double backward of continuous": Refusal(
        lambda case: case.passes == "double" and case.gradient == "continuous", ("UnsupportedCombination",), "double"
    ),
    "double backward of backprop through implicit stages": Refusal(
        lambda case: case.passes == "double" and case.gradient == "backprop" and is_implicit(case.method),
        ("UnsupportedCombination",),
        'need gradient="symplectic"',
    ),
    "double backward through the time of an event": Refusal(
        lambda case: case.passes == "double" and case.event == "smooth", ("UnsupportedCombination",), "event"
    ),
    "low precision does not reverse": Refusal(
        lambda case: case.gradient in ("mali", "reversible") and (case.autocast or "16" in case.dtype),
        ("ReversalError",),
    ),
    "gradient through an event that jumps": Refusal(
        lambda case: case.event == "jump", ("SolverError", "UnsupportedCombination"), "event|jump"
    ),
}
TORCHDIFFEQ_TOO = "torchdiffeq cannot either"
"""The name of all others, if they are errors of the library and torchdiffeq does not run the case."""


def is_own(error):
    """Return whether the library raised it deliberately."""
    return type(error).__module__ == errors.__name__ or type(error) in (ValueError, TypeError)
