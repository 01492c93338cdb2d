"""Rows of exact coefficients, read and counted."""

from fractions import Fraction

import pytest

from symplectic_adjoint.methods.coefficients import difference, effective_stages, row, table, to_floats, triangle


def test_numbers_are_read_exactly() -> None:
    assert row("1/5 -3/10 0.25") == (Fraction(1, 5), Fraction(-3, 10), Fraction(1, 4))
    assert table("1 2; 3 4") == ((1, 2), (3, 4))
    assert triangle("1/2; 0 1") == ((), (Fraction(1, 2),), (0, 1))


@pytest.mark.parametrize(("b", "stages"), [("1/2 1/2", 2), ("0 1 0", 2), ("1 0 0", 1), ("0 0", 0), ("", 0)])
def test_the_stages_are_those_up_to_the_last_weight(b: str, stages: int) -> None:
    assert effective_stages(row(b)) == stages


def test_a_difference_is_that_of_rows_of_one_length() -> None:
    assert difference(row("1/2 1/2"), row("1 0")) == (Fraction(-1, 2), Fraction(1, 2))
    with pytest.raises(ValueError):
        difference(row("1 0"), row("1"))


def test_floats_are_the_nearest_ones() -> None:
    assert to_floats(row("1/3 0.1")) == (1 / 3, 0.1)
