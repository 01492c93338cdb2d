"""Stability functions as exact rational functions of z = h lambda, for an additive method those of its implicit part.

Notation of Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.3.
"""

from collections.abc import Sequence
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
    """The coefficients of a diagonally implicit method, or of that part of an additive one."""

    A: tuple[Row, ...]
    diagonal: Row
    b: Row
    c: Row
    b_error: Row | None


def implicit_part(method: ButcherTableau) -> Implicit:
    step = 2 if method.additive else 1
    return Implicit(
        A=tuple(row[::step] for row in method.A[::step]),
        diagonal=method.extended_diagonal[: len(method.A) : step],
        b=method.b[::step],
        c=method.c[::step],
        b_error=None if method.b_error is None else method.b_error[::step],
    )


def denominator(part: Implicit) -> Polynomial:
    """Return Q = det(I - z A)."""
    return _product(*((Fraction(1), -g) for g in part.diagonal))


def response(part: Implicit, weights: Row) -> Polynomial:
    """Return the numerator of z weights^T (I - z A)^-1 1 over Q: what these weights make of y' = lambda y, y = 1."""
    states: list[Polynomial] = []  # of stage i, over the product of the factors 1 - z g_j up to j = i
    for i, row in enumerate(part.A):
        before = _product(*((Fraction(1), -g) for g in part.diagonal[:i]))
        states.append(_sum(before, _weighted(part, row, states, up_to=i)))
    return _weighted(part, weights, states, up_to=len(states))


def numerator(part: Implicit) -> Polynomial:
    """Return P = det(I - z A + z 1 b^T), so that R = P / Q."""
    return _sum(denominator(part), response(part, part.b))


def degree(polynomial: Polynomial) -> int:
    return max((n for n, a in enumerate(polynomial) if abs(a) > NEGLIGIBLE), default=0)


def e_polynomial(part: Implicit) -> Polynomial:
    """Return E as a polynomial in x = y^2, E(y) = |Q(iy)|^2 - |P(iy)|^2."""
    return _sum(_squared_on_axis(denominator(part)), tuple(-a for a in _squared_on_axis(numerator(part))))


def _squared_on_axis(polynomial: Polynomial) -> Polynomial:
    signed = [a * (-1) ** (n // 2) for n, a in enumerate(polynomial)]
    real, imaginary = tuple(signed[::2]), tuple(signed[1::2])
    return _sum(_product(real, real), _product((Fraction(0), Fraction(1)), imaginary, imaginary))


def _weighted(part: Implicit, weights: Row, states: Sequence[Polynomial], up_to: int) -> Polynomial:
    terms = (
        _product((Fraction(0), w), state, *((Fraction(1), -g) for g in part.diagonal[j + 1 : up_to]))
        for j, (w, state) in enumerate(zip(weights, states, strict=False))
        if w
    )
    return _sum(*terms)


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
