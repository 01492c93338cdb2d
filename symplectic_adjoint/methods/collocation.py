"""Fully implicit methods, by collocation: each is determined by its nodes.

    a_ij = int_0^{c_i} l_j ,   b_j(sigma) = int_0^sigma l_j ,   b_j = b_j(1) ,

where l_j is the Lagrange polynomial of node j (Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I
(1993), theorem II.7.7). Dense output is the collocation polynomial, of order s. Gauss nodes give order 2 s, with
A-stable and symplectic methods; Radau IIA nodes, the last of which is the end of the step, 2 s - 1 and L-stable ones
(Solving Ordinary Differential Equations II (1996), section IV.5).
"""

from fractions import Fraction

from symplectic_adjoint.methods.coefficients import Row, root, row
from symplectic_adjoint.methods.interpolant import Interpolant
from symplectic_adjoint.methods.tableau import ButcherTableau

_ONE, _HALF = Fraction(1), Fraction(1, 2)
_SQRT3 = root(row("-3 0 1"), near=Fraction(7, 4))
_SQRT6 = root(row("-6 0 1"), near=Fraction(5, 2))
_SQRT15 = root(row("-15 0 1"), near=Fraction(4))

_SECTION = "E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (2nd ed., 1996), section IV.5"


def _integrated_lagrange(c: Row, j: int) -> Row:
    """Return int_0^sigma l_j for these nodes: the coefficients of sigma, sigma^2, ..."""
    polynomial = (_ONE,)
    for i, c_i in enumerate(c):
        if i != j:
            by_sigma, by_node = (Fraction(0), *polynomial), (*(c_i * a for a in polynomial), Fraction(0))
            polynomial = tuple((p - q) / (c[j] - c_i) for p, q in zip(by_sigma, by_node, strict=True))
    return tuple(a / n for n, a in enumerate(polynomial, start=1))


def _collocation(
    name: str, order: int, c: Row, source: str, *, exact: bool, also_called: tuple[str, ...]
) -> ButcherTableau:
    weights = tuple(_integrated_lagrange(c, j) for j in range(len(c)))

    def up_to(sigma: Fraction) -> Row:
        return tuple(sum((a * sigma**n for n, a in enumerate(w, start=1)), Fraction(0)) for w in weights)

    rows = [up_to(c_i) for c_i in c]
    return ButcherTableau(
        name=name,
        also_called=also_called,
        order=order,
        A=tuple(a[:i] for i, a in enumerate(rows)),
        diagonal=tuple(a[i] for i, a in enumerate(rows)),
        upper=tuple(a[i + 1 :] for i, a in enumerate(rows)),
        b=up_to(_ONE),
        c=c,
        source=source,
        interpolant=Interpolant(order=len(c), weights=weights),
        exact=exact,
    )


RADAU_IIA3 = _collocation(
    "radauIIA3",
    order=3,
    c=row("1/3 1"),
    source=f"{_SECTION}, table 5.5",
    exact=True,
    also_called=("radau3", "radau_2a_3"),
)

RADAU_IIA5 = _collocation(
    "radauIIA5",
    order=5,
    c=((4 - _SQRT6) / 10, (4 + _SQRT6) / 10, _ONE),
    source=f"{_SECTION}, table 5.6",
    exact=False,
    also_called=("radau5", "radau_2a_5"),
)

GL4 = _collocation(
    "gl4",
    order=4,
    c=(_HALF - _SQRT3 / 6, _HALF + _SQRT3 / 6),
    source=f"{_SECTION}, table 5.1",
    exact=False,
    also_called=("gauss4", "gauss_legendre_4"),
)

GL6 = _collocation(
    "gl6",
    order=6,
    c=(_HALF - _SQRT15 / 10, _HALF, _HALF + _SQRT15 / 10),
    source=f"{_SECTION}, table 5.2",
    exact=False,
    also_called=("gauss6", "gauss_legendre_6"),
)
