"""Stability functions as exact rational functions of z = h lambda, for an additive method those of its implicit part.

Notation of Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.3.
"""

import operator
from fractions import Fraction
from typing import NamedTuple

from symplectic_adjoint.methods.coefficients import Row
from symplectic_adjoint.methods.tableau import ButcherTableau

# A polynomial: its coefficients, lowest power first.
Polynomial = tuple[Fraction, ...]

NEGLIGIBLE = Fraction(1, 10**40)
"""What is left of a coefficient that vanishes for the exact values of the irrational coefficients."""

ONE: Polynomial = (Fraction(1),)


class Implicit(NamedTuple):
    """The coefficients of an implicit method, or of that part of an additive one. matrix: the whole A."""

    A: tuple[Row, ...]
    diagonal: Row
    matrix: tuple[Row, ...]
    b: Row
    c: Row
    b_error: Row | None


def implicit_part(method: ButcherTableau) -> Implicit:
    step, rows = 2 if method.additive else 1, method.matrix[: len(method.A)]
    return Implicit(
        A=tuple(row[::step] for row in method.A[::step]),
        diagonal=method.extended_diagonal[: len(method.A) : step],
        matrix=tuple((*row[::step], *[Fraction(0)] * (len(rows[::step]) - len(row[::step]))) for row in rows[::step]),
        b=method.b[::step],
        c=method.c[::step],
        b_error=None if method.b_error is None else method.b_error[::step],
    )


def denominator(part: Implicit) -> Polynomial:
    """Return Q = det(I - z A)."""
    return _determinant(part.matrix)


def response(part: Implicit, weights: Row) -> Polynomial:
    """Return the numerator of z weights^T (I - z A)^-1 1 over Q: what these weights make of y' = lambda y, y = 1.

    It is det(I - z A + z 1 weights^T) - det(I - z A), since a determinant is linear in a change of rank one.
    """
    changed = tuple(tuple(a - w for a, w in zip(row, weights, strict=True)) for row in part.matrix)
    return _sum(_determinant(changed), tuple(-a for a in _determinant(part.matrix)))


def numerator(part: Implicit) -> Polynomial:
    """Return P = det(I - z A + z 1 b^T), so that R = P / Q."""
    return _sum(denominator(part), response(part, part.b))


def _determinant(matrix: tuple[Row, ...]) -> Polynomial:
    """Return det(I - z matrix), by Newton's identities for the traces of its powers."""
    n, power, traces = len(matrix), matrix, []
    for _ in range(n):
        traces.append(sum((power[i][i] for i in range(n)), Fraction(0)))
        columns = list(zip(*matrix, strict=True))
        power = tuple(tuple(sum(map(operator.mul, row, c), Fraction(0)) for c in columns) for row in power)
    found = [Fraction(1)]
    for k in range(1, n + 1):
        found.append(-sum((found[k - i] * traces[i - 1] for i in range(1, k + 1)), Fraction(0)) / k)
    return tuple(found)


def degree(polynomial: Polynomial) -> int:
    return max((n for n, a in enumerate(polynomial) if abs(a) > NEGLIGIBLE), default=0)


def e_polynomial(part: Implicit) -> Polynomial:
    """Return E as a polynomial in x = y^2, E(y) = |Q(iy)|^2 - |P(iy)|^2."""
    return _sum(_squared_on_axis(denominator(part)), tuple(-a for a in _squared_on_axis(numerator(part))))


def _squared_on_axis(polynomial: Polynomial) -> Polynomial:
    signed = [a * (-1) ** (n // 2) for n, a in enumerate(polynomial)]
    real, imaginary = tuple(signed[::2]), tuple(signed[1::2])
    return _sum(_product(real, real), _product((Fraction(0), Fraction(1)), imaginary, imaginary))


def _sum(*polynomials: Polynomial) -> Polynomial:
    length = max((len(p) for p in polynomials), default=0)
    return tuple(sum((p[n] for p in polynomials if n < len(p)), Fraction(0)) for n in range(length))


def _product(*polynomials: Polynomial) -> Polynomial:
    total = ONE
    for p in polynomials:
        longer = [Fraction(0)] * (len(total) + len(p) - 1)
        for i, a in enumerate(total):
            for j, b in enumerate(p):
                longer[i + j] += a * b
        total = tuple(longer)
    return total
