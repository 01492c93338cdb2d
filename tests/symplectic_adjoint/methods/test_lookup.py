"""Methods by name."""

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods.lookup import FOREIGN_METHODS, named_method


@pytest.mark.parametrize("name", METHODS)
def test_a_name_is_that_of_its_method(name: str) -> None:
    assert named_method(name) is METHODS[name]


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
