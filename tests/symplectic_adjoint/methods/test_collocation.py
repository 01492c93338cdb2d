"""The fully implicit methods against the literature, and what a tableau of coupled stages must be.

test_implicit.py has their orders, stability and dense output, with those of the other implicit methods.
"""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from symplectic_adjoint.errors import InvalidTableau
from symplectic_adjoint.methods.coefficients import row
from symplectic_adjoint.methods.interpolant import Interpolant, linear
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau
from tests.symplectic_adjoint.methods.stability import NEGLIGIBLE, denominator, implicit_part, numerator

COUPLED = [name for name, method in METHODS.items() if method.coupled]
R3, R6, R15 = math.sqrt(3.0), math.sqrt(6.0), math.sqrt(15.0)

# Hairer and Wanner, Solving Ordinary Differential Equations II (1996), tables 5.5, 5.6, 5.1 and 5.2: c, A, b.
PUBLISHED = {
    "radauIIA3": ([1 / 3, 1.0], [[5 / 12, -1 / 12], [3 / 4, 1 / 4]], [3 / 4, 1 / 4]),
    "radauIIA5": (
        [(4 - R6) / 10, (4 + R6) / 10, 1.0],
        [
            [(88 - 7 * R6) / 360, (296 - 169 * R6) / 1800, (-2 + 3 * R6) / 225],
            [(296 + 169 * R6) / 1800, (88 + 7 * R6) / 360, (-2 - 3 * R6) / 225],
            [(16 - R6) / 36, (16 + R6) / 36, 1 / 9],
        ],
        [(16 - R6) / 36, (16 + R6) / 36, 1 / 9],
    ),
    "gl4": (
        [1 / 2 - R3 / 6, 1 / 2 + R3 / 6],
        [[1 / 4, 1 / 4 - R3 / 6], [1 / 4 + R3 / 6, 1 / 4]],
        [1 / 2, 1 / 2],
    ),
    "gl6": (
        [1 / 2 - R15 / 10, 1 / 2, 1 / 2 + R15 / 10],
        [
            [5 / 36, 2 / 9 - R15 / 15, 5 / 36 - R15 / 30],
            [5 / 36 + R15 / 24, 2 / 9, 5 / 36 - R15 / 24],
            [5 / 36 + R15 / 30, 2 / 9 + R15 / 15, 5 / 36],
        ],
        [5 / 18, 4 / 9, 5 / 18],
    ),
}


def test_every_method_of_coupled_stages_is_compared() -> None:
    assert list(PUBLISHED) == COUPLED


@pytest.mark.parametrize("name", COUPLED)
def test_the_coefficients_are_the_published_ones(name: str) -> None:
    c, A, b = PUBLISHED[name]
    floats = METHODS[name].floats
    for ours, published in zip((floats.c, floats.b, *floats.matrix), (c, b, *A), strict=True):
        assert ours == pytest.approx(published, abs=1e-15)


@pytest.mark.parametrize("name", COUPLED)
def test_only_gauss_methods_are_symplectic(name: str) -> None:
    """b_i a_ij + b_j a_ji = b_i b_j: Hairer, Lubich and Wanner, Geometric Numerical Integration, theorem VI.4.3."""
    A, b, s = METHODS[name].matrix, METHODS[name].b, METHODS[name].stages
    off = max(abs(b[i] * A[i][j] + b[j] * A[j][i] - b[i] * b[j]) for i in range(s) for j in range(s))
    assert off < NEGLIGIBLE if name.startswith("gl") else off > Fraction(1, 100)


@pytest.mark.parametrize("name", COUPLED)
def test_the_stability_function_is_a_pade_approximation_of_the_exponential(name: str) -> None:
    """Of degrees (s, s) for Gauss methods, (s - 1, s) for Radau IIA: Hairer and Wanner II, theorem IV.3.10."""
    method = METHODS[name]
    k, j = (method.stages if name.startswith("gl") else method.stages - 1), method.stages
    part, both = implicit_part(method), math.factorial(k + j)

    def pade(m: int, other: int) -> list[Fraction]:
        terms = range(m + 1)
        return [Fraction(math.comb(m, n) * math.factorial(m + other - n), both) for n in terms]

    expected_p, expected_q = pade(k, j), [(-1) ** n * a for n, a in enumerate(pade(j, k))]
    for got, expected in ((numerator(part), expected_p), (denominator(part), expected_q)):
        padded = [*expected, *[Fraction(0)] * (len(got) - len(expected))]
        assert all(abs(a - e) < NEGLIGIBLE for a, e in zip(got, padded, strict=True))


@pytest.mark.parametrize("name", COUPLED)
def test_dense_output_passes_through_the_stages(name: str) -> None:
    """The collocation polynomial is Y_i at c_i."""
    method = METHODS[name]
    for a, c in zip(method.matrix, method.c, strict=True):
        at_node = [sum(w * c**p for p, w in enumerate(weights, start=1)) for weights in method.interpolant.weights]
        assert max(abs(x - y) for x, y in zip(at_node, a, strict=True)) < NEGLIGIBLE


def radau(**changes: Any) -> ButcherTableau:
    """Return Radau IIA of order 3 with these changes."""
    return replace(METHODS["radauIIA3"], **{"name": "mine", **changes})


BAD = {
    "too few rows": ({"upper": (row("-1/12"),)}, "upper must have 2 rows, one for each row of A, got 1"),
    "a long row": ({"upper": (row("-1/12"), row("1"))}, "row 1 of upper .* must have 0 entries, got 1"),
    "floats": ({"upper": ((-0.25,), ())}, "row 0 of upper .* holds the float -0.25; give a fractions.Fraction"),
    "a row that does not sum to its node": ({"upper": (row("1/12"), ())}, "row 0 of A must sum to 1/3, got 1/2"),
    "no diagonal": ({"diagonal": None}, "upper is for fully implicit methods: give a diagonal, and no parts"),
    "no interpolant": ({"interpolant": None}, "coupled stages need an interpolant that adds no rows; give one"),
    "an interpolant with rows": (
        {"interpolant": Interpolant(order=2, weights=(row("1"), row("0"), row("0")), A=(row("3/4 1/4"),), c=row("1"))},
        "coupled stages need an interpolant that adds no rows; give one",
    ),
    "an unused stage": (
        {"b": row("1 0"), "interpolant": linear(row("1 0"))},
        "b must use row 1: coupled stages are solved for together; remove the row",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_tableau_raises_and_the_message_names_method_and_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTableau, match=f"^mine: .*{message}"):
        radau(**changes)


def test_only_methods_with_upper_are_coupled() -> None:
    assert COUPLED == ["radauIIA3", "radauIIA5", "gl4", "gl6"]
    assert all(method.upper is None for name, method in METHODS.items() if name not in COUPLED)
