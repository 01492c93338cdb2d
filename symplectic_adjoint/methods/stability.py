"""How far an explicit method is stable, and which of its stages show that a step is as long as that."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from symplectic_adjoint.methods.coefficients import Row

GRID = 1.0 / 64.0
"""The spacing at which the stability function is looked at before its bound is bisected."""


class Stability(NamedTuple):
    """The stability of an explicit method on the negative real axis.

    bound: the largest x such that |R(-z)| <= 1 for every z up to x. slopes, states: the pairs (j, weight) of two sums
    over the k_j. The first sum is sum w_i k_i, and h times the second is sum w_i Y_i, for weights w in which what is
    smooth in the step cancels: the norm of the first over that of the second is an estimate of h rho, where rho is the
    size of the largest eigenvalue of df/dy.
    """

    bound: float
    slopes: tuple[tuple[int, float], ...]
    states: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, A: Sequence[Row], b: Row, c: Row) -> "Stability":
        """Return the stability of the method with this strictly lower triangle, these weights and nodes."""
        weights = _contrast(c)
        states = [sum((w * A[i][j] for i, w in weights.items() if j < i), Fraction(0)) for j in range(len(A))]
        return cls(
            real_bound(stability_polynomial(A, b)),
            tuple((i, float(w)) for i, w in weights.items()),
            tuple((j, float(w)) for j, w in enumerate(states) if w != 0),
        )


def stability_polynomial(A: Sequence[Row], b: Row) -> list[Fraction]:
    """Return the coefficients of R(z) = 1 + z b^T (I - z A)^-1 1, constant first.

    Hairer and Wanner, Solving Ordinary Differential Equations II, eq. IV.2.10: that of z^n is b^T A^(n-1) 1.
    """
    power = [Fraction(1)] * len(b)
    coefficients = [Fraction(1)]
    for _ in b:
        coefficients.append(sum((x * y for x, y in zip(b, power, strict=True)), Fraction(0)))
        power = [sum((x * y for x, y in zip(row, power, strict=False)), Fraction(0)) for row in A]
    return coefficients


def real_bound(polynomial: Sequence[Fraction]) -> float:
    """Return the largest x such that |R(-z)| <= 1 for every z in [0, x], to rounding error."""
    floats = [float(x) for x in reversed(polynomial)]

    def stable(x: float) -> bool:
        value = 0.0
        for coefficient in floats:
            value = value * -x + coefficient
        return abs(value) <= 1.0

    low = 0.0
    while stable(low + GRID):
        low += GRID
    high = low + GRID
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def _contrast(c: Row) -> dict[int, Fraction]:
    """Return weights of the last stages, by row, for which sum w_i c_i^p = 0 for the first powers p.

    The last stage and one at the same time, where there is one (Hairer and Wanner II, section IV.2, for dopri5). Else a
    divided difference of the last third of the stages, of three at least: with fewer, slow components hide fast ones.
    """
    last = len(c) - 1
    if c[last] in c[:last]:
        return {max(i for i in range(last) if c[i] == c[last]): Fraction(-1), last: Fraction(1)}
    latest = {node: i for i, node in enumerate(c)}  # by node, of which a divided difference takes each once
    rows = sorted(latest.values())[-max(3, len(c) // 3) :]
    return {i: Fraction(1) / math.prod(c[i] - c[j] for j in rows if j != i) for i in rows}
