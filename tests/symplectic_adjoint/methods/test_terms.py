"""The nonzero coefficients of a tableau, from which steps and their transposes are summed."""

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods.leapfrog import leapfrog
from symplectic_adjoint.methods.tableau import ButcherTableau

every_method = pytest.mark.parametrize("method", [*METHODS.values(), leapfrog(0.75)], ids=[*METHODS, "leapfrog"])


def dense(terms, length: int) -> tuple[float, ...]:
    return tuple(dict(terms).get(i, 0.0) for i in range(length))


@every_method
def test_the_terms_are_the_coefficients_without_zeros(method: ButcherTableau) -> None:
    floats, terms = method.floats, method.terms
    assert [dense(row, i) for i, row in enumerate(terms.A)] == list(floats.A)
    assert dense(terms.b, method.stages) == floats.b
    estimates = [weights for weights in (floats.b_error, floats.b_error_low) if weights is not None]
    assert [dense(row, len(method.A)) for row in terms.errors] == estimates
    pairs = [pair for rows in (terms.A, terms.columns, [terms.b], terms.errors) for row in rows for pair in row]
    assert all(weight != 0.0 for _, weight in pairs)


@every_method
def test_the_columns_are_the_transposed_rows(method: ButcherTableau) -> None:
    rows = {(i, j, a) for i, row in enumerate(method.terms.A) for j, a in row}
    columns = [(i, j, a) for j, column in enumerate(method.terms.columns) for i, a in column]
    assert set(columns) == rows and len(columns) == len(rows)
    assert len(method.terms.columns) == len(method.extended_A)
    for column in method.terms.columns:
        assert [i for i, _ in column] == sorted(i for i, _ in column)
