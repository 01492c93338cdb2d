"""Additive methods: pairs of rows, sums for each part, and the coupling of the two methods."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import Row, row, table
from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from tests.symplectic_adjoint.methods.stability import implicit_part
from tests.symplectic_adjoint.methods.trees import OrderConditions, trees

ARS222, KENCARP4 = IMPLICIT_METHODS["ars222"], IMPLICIT_METHODS["kencarp4"]
additive_methods = pytest.mark.parametrize("method", [ARS222, KENCARP4], ids=lambda m: m.name)


def test_the_number_of_trees_of_two_colours_is_that_of_the_literature() -> None:
    assert [len(trees(nodes, colours=2)) for nodes in range(1, 6)] == [2, 4, 14, 52, 214]


def test_the_additive_methods_are_those_with_parts() -> None:
    assert [method.name for method in IMPLICIT_METHODS.values() if method.additive] == ["ars222", "kencarp4"]
    assert all(method.extended_parts is None for method in IMPLICIT_METHODS.values() if not method.additive)


@additive_methods
def test_the_two_rows_of_a_stage_have_the_same_state(method: ButcherTableau) -> None:
    diagonal = method.extended_diagonal
    assert method.parts == (1, 0) * (len(method.A) // 2)
    for i in range(0, len(method.A), 2):
        assert method.A[i + 1] == (*method.A[i], diagonal[i])
        assert method.c[i + 1] == method.c[i] and diagonal[i + 1] == 0


def test_the_conditions_of_two_colours_see_a_wrong_explicit_part() -> None:
    """What is moved from one column to another keeps every sum, and the order of the implicit method."""
    moved = Fraction(1, 100)

    def shifted(entries: Row) -> Row:
        return (entries[0], entries[1] + moved, entries[2], entries[3] - moved, *entries[4:])

    wrong = replace(KENCARP4, A=(*KENCARP4.A[:4], *map(shifted, KENCARP4.A[4:])))
    assert OrderConditions(wrong).violation(wrong.b, 2) < Fraction(1, 10**24)
    assert OrderConditions(wrong).violation(wrong.b, 3) > Fraction(1, 10**6)
    assert implicit_part(wrong) == implicit_part(KENCARP4)


@additive_methods
def test_the_default_interpolant_adds_both_parts_of_f_at_the_end(method: ButcherTableau) -> None:
    cubic, rows = replace(method, interpolant=None), len(method.A)
    assert cubic.extended_parts == (1, 0) * (rows // 2 + 1)
    for end in (rows, rows + 1):
        assert cubic.extended_c[end] == 1 and cubic.extended_diagonal[end] == 0
        assert cubic.extended_A[end][:rows] == method.b and not any(cubic.extended_A[end][rows:])
    conditions = OrderConditions(cubic)
    assert all(conditions.dense_violation(n) < Fraction(1, 10**24) for n in range(1, min(3, method.order) + 1))
    first = [weights[0] for weights in cubic.interpolant.weights]
    last = [sum(p * w for p, w in enumerate(weights, start=1)) for weights in cubic.interpolant.weights]
    assert first == [1, 1, *[0] * rows] and last == [*[0] * rows, 1, 1]


def test_the_first_row_of_ars222_has_no_weight() -> None:
    assert not any(entries[0] for entries in ARS222.A[1:])
    assert ARS222.b[0] == 0 and not any(ARS222.interpolant.weights[0])


def test_the_explicit_part_of_ars222_at_the_end_is_no_stage() -> None:
    """It is row `stages`, one part of f at the end: not the first call of the next step, which takes both."""
    assert len(ARS222.A) == ARS222.stages + 1 and not ARS222.fsal


def test_both_parts_of_kencarp4_have_the_same_weights() -> None:
    for weights in (KENCARP4.b, KENCARP4.b_error or (), KENCARP4.interpolant.weights):
        assert weights[::2] == weights[1::2]


# ---- validation ----


def imex_euler(**changes: Any) -> ButcherTableau:
    """Return forward Euler with backward Euler, with these changes."""
    coefficients: dict[str, Any] = {
        "A": ((), row("0"), row("0 1"), row("0 1 1")),
        "diagonal": row("0 0 1 0"),
        "parts": (1, 0, 1, 0),
        "b": row("0 1 1 0"),
        "c": row("0 0 1 1"),
    }
    return ButcherTableau(**{"name": "mine", "order": 1, "source": "test", **coefficients, **changes})


BAD = {
    "too few parts": ({"parts": (1, 0, 1)}, "parts must have 4 entries, one for each row of A, got 3"),
    "parts without a diagonal": (
        {"diagonal": None},
        "parts belong to an additive method, whose implicit part needs a diagonal; give it",
    ),
    "parts in another order": ({"parts": (0, 1, 0, 1)}, r"parts must alternate, .* got \(0, 1, 0, 1\); pair the rows"),
    "a third part": ({"parts": (1, 0, 2, 0)}, r"parts must alternate, .* got \(1, 0, 2, 0\)"),
    "an implicit row of the explicit part": (
        {"diagonal": row("0 0 1 1/2")},
        "row 3 is of the explicit part, so its diagonal must be 0, got 1/2",
    ),
    "two states in a stage": (
        {"A": ((), row("0"), row("0 1"), row("1 1 0"))},
        "rows 2 and 3 are one stage: give them the same state and node",
    ),
    "an explicit part that does not sum to c": (
        {"A": ((), row("0"), row("0 1/2"), row("0 1/2 1"))},
        "the explicit part of row 2 of A must sum to 1, got 1/2",
    ),
    "an implicit part that does not sum to c": (
        {"A": ((), row("0"), row("1/2 1"), row("1/2 1 1"))},
        "the implicit part of row 2 of A must sum to 1, got 3/2",
    ),
    "weights that sum to 2 but not to 1 each": ({"b": row("0 1/2 3/2 0")}, "the explicit part of b must sum to 1"),
    "an estimate that sums to 0 only in all": (
        {"b_error": row("0 1 -1 0"), "error_order": 1},
        "the explicit part of b_error must sum to 0, got 1",
    ),
    "dense output that is linear in time only in all": (
        {"interpolant": Interpolant(order=1, weights=(row("0 0"), row("2 -1"), row("0 1"), row("0 0")))},
        r"the explicit part of the interpolant's weights of sigma\^1 must sum to 1, got 2",
    ),
    "added rows without parts": (
        {"interpolant": Interpolant(order=1, weights=table("0; 1; 1; 0; 0"), A=(row("0 1 1 0"),), c=row("1"))},
        r"must give a part to each row that it adds to an additive method, got \(\)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_additive_tableau_raises_and_the_message_names_method_and_row(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidTableau, match=f"^mine: .*{message}"):
        imex_euler(**changes)


def test_the_tableau_that_the_bad_ones_modify_is_valid() -> None:
    assert imex_euler().additive and imex_euler().stages == 3
