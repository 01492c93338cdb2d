"""The registered gradients, grouped by what a test may require of them, and the assignment of test cases to them."""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice

from symplectic_adjoint import GRADIENTS

OWN_STEPS = [name for name, strategy in GRADIENTS.items() if strategy.own_steps]
"""Gradients that take steps of their own instead of the method's: gradients/test_reversible.py tests them."""
STANDARD = [name for name in GRADIENTS if name not in OWN_STEPS]
EXACT = [name for name in STANDARD if GRADIENTS[name].exact]
"""Exact for the method's own steps."""
FORWARD = ["backprop", "symplectic"]
"""A forward pass on the graph, and one off it: for a test of forward values all others are like the second."""


def taking_turns(cases: Iterable, gradients: Sequence[str] = STANDARD) -> list[tuple]:
    """Return (gradient, *case) with every case and every gradient at least once, but not in all combinations.

    For tests in which case and gradient are independent. gradients/test_exactness.py has all combinations of exact
    gradients, methods, grids and directions.
    """
    parts = [case if isinstance(case, tuple) else (case,) for case in cases]
    length = max(len(parts), len(gradients))
    return [(name, *case) for name, case in islice(zip(cycle(gradients), cycle(parts), strict=False), length)]


def and_continuous(cases: Iterable) -> list[tuple]:
    """Return taking_turns over the exact gradients, and every case with "continuous".

    For tests of gradients: the second solve of "continuous" depends on the method and the options of the case.
    """
    cases = list(cases)
    return taking_turns(cases, EXACT) + taking_turns(cases, ["continuous"])
