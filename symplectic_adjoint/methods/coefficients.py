"""Rows of exact coefficients: read from text, subtracted, counted and rounded to floats."""

from collections.abc import Sequence
from fractions import Fraction

Row = tuple[Fraction, ...]
FloatRow = tuple[float, ...]

DIGITS = 60
"""Decimals of an irrational coefficient."""


def row(text: str) -> Row:
    """Read numbers separated by spaces, such as "1/5 3/10 0.25" (exact: no float is involved)."""
    return tuple(Fraction(number) for number in text.split())


def table(text: str) -> tuple[Row, ...]:
    """Read rows separated by semicolons."""
    return tuple(row(line) for line in text.split(";"))


def triangle(text: str) -> tuple[Row, ...]:
    """Read a strictly lower triangular A: the rows below the first, which is empty."""
    return ((), *table(text))


def difference(b: Row, b_hat: Row) -> Row:
    """Return b - b_hat, the weights of the error estimate of an embedded pair."""
    return tuple(p - q for p, q in zip(b, b_hat, strict=True))


def effective_stages(b: Row) -> int:
    """Return s, the number of leading rows up to the last one with a nonzero weight in b."""
    return max((i for i, weight in enumerate(b, start=1) if weight), default=0)


def root(polynomial: Row, near: Fraction) -> Fraction:
    """Return the root of a polynomial (lowest power first) that Newton's iteration reaches from a value near it.

    It is rounded to DIGITS decimals, so that sums and products of coefficients made from it hold to about as many.
    """
    x, one = near, Fraction(10**DIGITS)
    while True:
        value = sum((a * x**n for n, a in enumerate(polynomial)), Fraction(0))
        slope = sum((n * a * x ** (n - 1) for n, a in enumerate(polynomial) if n), Fraction(0))
        closer = round((x - value / slope) * one) / one
        if abs(closer - x) <= 1 / one:
            return closer
        x = closer


def to_floats(numbers: Sequence[Fraction]) -> FloatRow:
    """Round each number to the nearest double."""
    return tuple(float(number) for number in numbers)


def show(number: Fraction) -> str:
    """Write a short fraction as it is, a long one as a decimal."""
    return str(number) if len(str(number)) <= 12 else f"{float(number):.17g}"
