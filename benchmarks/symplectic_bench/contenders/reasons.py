"""Reasons why a contender cannot do a cell, shared by the adapters."""

import warnings
from importlib.util import find_spec
from typing import Any

import torch

from symplectic_adjoint import GRADIENTS, METHODS
from symplectic_bench.contenders.contender import Contender
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.spec.cell import Cell, is_users_problem
from symplectic_bench.spec.suggestion import suggestion

GRADIENTS_ELSEWHERE = {other: name for name, one in reversed(list(GRADIENTS.items())) for other in one.also_called}
"""Other libraries' names of the gradients."""


def not_installed(package: str, how: str) -> str | None:
    """Return a message that the package is not installed, and how to install it, or None if it is."""
    return None if find_spec(package) is not None else f"{package} is not installed: {how}"


def unknown_gradient(contender: Contender, cell: Cell) -> str | None:
    """Return a message that the contender lacks the cell's gradient, or None if it has it."""
    if cell.gradient in contender.gradients:
        return None
    near = suggestion(cell.gradient, contender.gradients, GRADIENTS_ELSEWHERE)
    return f"{contender.name} has no gradient {cell.gradient!r}{near}"


def several_fields(cell: Cell) -> str | None:
    """Return why a contender that takes a single field cannot do the cell, or None."""
    return "its field is a stack of several" if PROBLEMS[cell.problem].stacked else None


def one_tensor_at_constant_times(contender: Contender, cell: Cell) -> str | None:
    """Return why a contender that is given one tensor, and times without gradients, cannot do the cell, or None."""
    family = PROBLEMS.get(cell.problem)  # None for a user's own problem, and for a task, which is trained
    if family is None:
        return None
    if family.parts:
        return f"{contender.name} is given states of one tensor only, and this one is a tuple"
    if family.moving_times:
        return f"{contender.name} is not asked for gradients of times"
    return None


def takes_pair(method: str) -> bool:
    """Return whether the library's method takes the field in two parts, as IMEX methods do."""
    return METHODS[method].additive


def one_part(cell: Cell) -> str | None:
    """Return why a method that takes the field in two parts cannot solve the cell's problem, or None."""
    family = PROBLEMS.get(cell.problem)
    if family is None or family.split is not None:
        return None
    return f"{cell.method} takes a field in two parts, and that of {cell.problem} is in one"


def outputs_between_steps(whose: str, cell: Cell) -> str | None:
    """Return why a solver that steps from output to output cannot do the cell in equal steps, or None."""
    if cell.steps is None:
        return None
    if is_users_problem(cell.problem):
        return f"{whose} steps from output to output, and the suite does not know the problem's outputs"
    family = PROBLEMS.get(cell.problem)  # tasks are not in PROBLEMS
    sizes: dict[str, Any] = {"outputs": 1, **(family.sizes if family else {}), **cell.sizes_dict}
    if cell.steps % sizes["outputs"]:
        return f"{whose} steps from output to output, so steps must be a multiple of {sizes['outputs']}"
    return None


def shared_reason(cell: Cell, adaptive: bool) -> str | None:
    """Return why no contender can do the cell, tolerances without an error estimate, or None."""
    if cell.rtol is not None and not adaptive:
        return f"{cell.method} has no error estimate, so it takes steps, not tolerances"
    return None


def no_device(cell: Cell) -> str | None:
    """Return a message that this machine has no device for the cell, or None if it has one."""
    return "there is no CUDA device here" if cell.device == "cuda" and not has_cuda() else None


def has_cuda() -> bool:
    """Return whether torch finds a CUDA device here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that torch cannot use
        return torch.cuda.is_available()
