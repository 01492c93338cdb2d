"""References from a closed-form solution, differentiated in fifty digits."""

from typing import Any

import numpy as np

from symplectic_bench.oracles.fifty_digits import more_digits, plain
from symplectic_bench.oracles.twin import DigitsTwin, error_between, values
from symplectic_bench.problems import Problem
from symplectic_bench.references.reference import Reference

SOURCE = "closed form"

ROUNDED = 1e-32
"""The relative error of a number stored as two doubles."""

LARGEST = 10_000
"""The largest total size of the outputs: about ten seconds."""


def has_closed_form(problem: Problem) -> bool:
    """Return whether the problem has a closed form and is small enough to evaluate it."""
    return problem.solution is not None and problem.y0.numel() * (len(problem.t) - 1) <= LARGEST


def closed_form_reference(problem: Problem) -> Reference:
    """Return the reference. Its error bar is the change if ten more digits are computed."""
    final_state, loss, gradient, by_times = _solved(problem)
    with more_digits(10):
        _, _, checked, _ = _solved(problem)
    bar = error_between(gradient, checked) + ROUNDED
    return Reference.of_numbers(SOURCE, final_state, float(loss), gradient, by_times, bar)


def _solved(problem: Problem) -> tuple[np.ndarray, Any, list[np.ndarray], np.ndarray]:
    """Return the final state, the loss, and its gradients with respect to the inputs and to the times."""
    twin = DigitsTwin(problem)
    ys = twin.solution()
    loss = twin.loss(ys)
    gradient = twin.gradient(loss)
    return values(ys[-1]), plain(loss), gradient, twin.gradient_by_times(values(ys), gradient[0])
