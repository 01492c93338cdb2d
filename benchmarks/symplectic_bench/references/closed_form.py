"""Problems that mathematics has solved: their solution in fifty digits, differentiated as it stands."""

from typing import Any

import numpy as np

from symplectic_bench.oracles.fifty_digits import more_digits, plain
from symplectic_bench.oracles.twin import DigitsTwin, error_between, values
from symplectic_bench.problems import Problem
from symplectic_bench.references.reference import Reference

SOURCE = "closed form"

ROUNDED = 1e-32
"""What two doubles leave of a number, relative."""


LARGEST = 10_000
"""Numbers in all outputs: ten seconds or so."""


def has_closed_form(problem: Problem) -> bool:
    """Whether there is one, of a problem that is not too large for it."""
    return problem.solution is not None and problem.y0.numel() * (len(problem.t) - 1) <= LARGEST


def closed_form(problem: Problem) -> Reference:
    """The bar is what ten digits more change."""
    final_state, loss, gradient, by_times = _solved(problem)
    with more_digits(10):
        _, _, checked, _ = _solved(problem)
    bar = error_between(gradient, checked) + ROUNDED
    return Reference.of_numbers(SOURCE, final_state, float(loss), gradient, by_times, bar)


def _solved(problem: Problem) -> tuple[np.ndarray, Any, list[np.ndarray], np.ndarray]:
    """The final state, the loss, its gradient, and that by the times."""
    twin = DigitsTwin(problem)
    ys = twin.solution()
    loss = twin.loss(ys)
    gradient = twin.gradient(loss)
    return values(ys[-1]), plain(loss), gradient, twin.gradient_by_times(values(ys), gradient[0])
