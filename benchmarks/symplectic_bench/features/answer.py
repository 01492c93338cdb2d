"""Answers to a probe, and how a program gives one."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor


class Verdict(StrEnum):
    """The word in a cell."""

    YES = "yes"
    NO = "no"
    WRONG = "wrong"
    REFUSED = "refused"
    NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Answer:
    """A verdict, and its detail: a reason, a relative error, the first line of an exception, or nothing."""

    verdict: Verdict
    detail: str = ""


class Lacks(Exception):
    """The library has no such thing, or not at that cost: the answer is no, for the reason in the message."""


class Wrong(Exception):
    """The library returned without a word what is not the answer."""


def judge(program: Callable[[], Any]) -> Answer:
    """Run a program, and return "yes" if it ends, "no" after Lacks, "wrong" after Wrong, "refused" after any other."""
    try:
        program()
    except Lacks as reason:
        return Answer(Verdict.NO, str(reason))
    except Wrong as error:
        return Answer(Verdict.WRONG, str(error))
    except Exception as error:
        return Answer(Verdict.REFUSED, first_line(error))
    return Answer(Verdict.YES)


LONGEST = 160
"""Characters of an exception that an answer keeps."""


def first_line(error: BaseException) -> str:
    """Return the type of an exception and the first line of its message, without addresses and paths."""
    lines = str(error).strip().splitlines() or [""]
    text = re.sub(r"0x[0-9a-fA-F]+", "0x…", f"{type(error).__name__}: {lines[0].strip()}")
    text = re.sub(r"(/[\w.+-]+){2,}/", "…/", text).rstrip(": ")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def expect(got: Any, known: Any, tolerance: float = 1e-4) -> None:
    """Compare a result with the known answer.

    Raises:
        Wrong: if their relative difference, in the largest entry, exceeds the tolerance, or the result is missing.
    """
    if got is None:
        raise Wrong("None without an error")
    got, known = (torch.as_tensor(one).detach().to(torch.complex128).reshape(-1) for one in (got, known))
    if got.shape != known.shape:
        raise Wrong(f"{got.numel()} numbers instead of {known.numel()}")
    error = largest(got - known) / max(largest(known), 1e-30)
    if not error <= tolerance:  # NaN included
        raise Wrong(f"off by {error:.0e}")


def largest(numbers: Tensor) -> float:
    """Return the largest magnitude."""
    return float(numbers.abs().max())


def expect_stop(program: Callable[[], Any]) -> None:
    """Run a program that should end in an error of the library.

    Raises:
        Wrong: if it ends without one.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            program()
        except (Lacks, Wrong, TimeoutError):
            raise
        except Exception:
            return
    raise Wrong("a warning only" if told else "no error")
