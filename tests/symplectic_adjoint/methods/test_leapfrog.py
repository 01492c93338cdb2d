"""Asynchronous leapfrog as a tableau, by number."""

from fractions import Fraction

from symplectic_adjoint.methods.leapfrog import NAME, damping, leapfrog
from symplectic_adjoint.methods.registry import METHODS


def test_the_tableau_of_a_damping() -> None:
    method = leapfrog(0.375)
    rows, nodes = method.A, method.c
    assert rows == ((), (Fraction(1, 2),)) and nodes == (0, Fraction(1, 2))
    assert method.b == (Fraction(5, 8), Fraction(3, 8))
    assert method.b_error == (Fraction(-3, 8), Fraction(3, 8))
    assert (method.order, method.error_order, method.stages) == (1, 1, 2)
    assert damping(method) == 0.375


def test_without_damping_it_is_the_midpoint_rule_from_a_given_slope() -> None:
    method = leapfrog(1.0)
    assert method.b == (0, 1) and method.order == 2


def test_it_is_made_once_and_is_no_entry_of_the_registry() -> None:
    assert leapfrog(0.375) is leapfrog(0.375)
    assert NAME == leapfrog(1.0).name == "alf" and NAME not in METHODS
