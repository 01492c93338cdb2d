"""Methods by name."""

import re

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods.lookup import FOREIGN_METHODS, named_method
from symplectic_adjoint.methods.registry import ALIASES, IMPLICIT_METHODS

ALL_METHODS = {**METHODS, **IMPLICIT_METHODS}


@pytest.mark.parametrize("name", ALL_METHODS)
def test_a_name_is_that_of_its_method(name: str) -> None:
    assert named_method(name) is ALL_METHODS[name]


def test_an_alias_is_accepted_and_names_the_same_method() -> None:
    assert named_method("trapezoid") is named_method("crank_nicolson")
    assert not set(ALIASES) & {*ALL_METHODS, *FOREIGN_METHODS}
    assert set(ALIASES.values()) <= set(ALL_METHODS)


def test_the_hint_for_a_method_without_counterpart_names_methods_that_exist() -> None:
    for hint in FOREIGN_METHODS.values():
        named = [word for word in re.findall(r"'(\w+)'", hint) if word != "step_size"]
        assert all(word in ALL_METHODS for word in named)


@pytest.mark.parametrize(
    ("given", "meant"), [("Kvaerno3", "kvaerno3"), ("KenCarp4", "kencarp4"), ("CrankNicolson", "crank_nicolson")]
)
def test_another_spelling_of_an_implicit_method_is_understood(given: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"unknown method '{given}', did you mean '{meant}'"):
        named_method(given)


def test_no_name_is_the_default() -> None:
    assert named_method(None) is METHODS["dopri5"]


@pytest.mark.parametrize("name", FOREIGN_METHODS)
def test_a_method_of_another_library_is_refused_with_an_alternative(name: str) -> None:
    with pytest.raises(ValueError, match=f"method '{name}': .*(available|gradient=)"):
        named_method(name)


@pytest.mark.parametrize("name", ["dopri6", "", 4, ["rk4"], METHODS["rk4"]], ids=repr)
def test_anything_else_is_refused_with_the_names(name: object) -> None:
    with pytest.raises(ValueError, match=r"unknown method .*: methods are euler, midpoint.*, dop853"):
        named_method(name)  # pyright: ignore[reportArgumentType]
