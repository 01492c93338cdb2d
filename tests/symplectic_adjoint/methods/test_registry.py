"""METHODS: collected from the files of methods/, in a stable order, and read-only."""

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from symplectic_adjoint import METHODS
from symplectic_adjoint.methods import order_1_to_4
from symplectic_adjoint.methods.registry import DEFAULT_METHOD, EXPLICIT_METHODS, IMPLICIT_METHODS, collect

RK4 = METHODS["rk4"]


def family(**values: object) -> ModuleType:
    module = ModuleType("family")
    vars(module).update(values)
    return module


def test_every_file_of_methods_is_collected_in_the_order_of_its_lines() -> None:
    files = sorted(Path(order_1_to_4.__file__).parent.glob("order_*.py"))
    names = [name for file in files for name in re.findall(r'^ +name="(\w+)",$', file.read_text(), re.MULTILINE)]
    assert list(EXPLICIT_METHODS) == names and {"euler", "dopri5", "dop853"} < set(names)


def test_every_method_is_registered_under_its_name_by_increasing_order() -> None:
    assert all(name == method.name for name, method in METHODS.items())
    orders = [method.order for method in EXPLICIT_METHODS.values()]
    assert orders == sorted(orders)
    assert [*EXPLICIT_METHODS, *IMPLICIT_METHODS] == list(METHODS)
    assert all(method.implicit == (name in IMPLICIT_METHODS) for name, method in METHODS.items())


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        METHODS["rk4"] = METHODS["rk38"]  # pyright: ignore[reportIndexIssue]


def test_the_default_method_is_adaptive() -> None:
    assert METHODS[DEFAULT_METHOD].adaptive


def test_a_tableau_in_a_family_file_is_registered_automatically() -> None:
    mine = replace(RK4, name="mine")
    assert list(collect(order_1_to_4, family(MINE=mine)))[-1] == "mine"


def test_private_names_and_other_values_are_not_registered() -> None:
    assert not collect(family(_DRAFT=RK4, B=RK4.b, ORDER=4))


def test_a_method_with_two_names_in_its_file_is_registered_once() -> None:
    assert list(collect(family(RK4=RK4, CLASSIC=RK4))) == ["rk4"]


def test_two_methods_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two methods are named 'rk4': rename one of them"):
        collect(order_1_to_4, family(OTHER=replace(METHODS["rk38"], name="rk4")))
