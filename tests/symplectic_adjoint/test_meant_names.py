"""Names that are not known: the error says which one was meant."""

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS, odeint, set_default, solve
from symplectic_adjoint.errors import bare, did_you_mean
from symplectic_adjoint.gradients import OTHER_NAMES as OTHER_GRADIENTS
from symplectic_adjoint.gradients.auto import AUTO
from symplectic_adjoint.methods.lookup import FOREIGN_METHODS, named_method
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from symplectic_adjoint.methods.registry import OTHER_NAMES as OTHER_METHODS
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 1.0], dtype=torch.float64)

METHODS_MEANT = {
    "dopri": "dopri5",
    "rk45": "dopri5",
    "RK45": "dopri5",
    "RK4": "rk4",
    "RK_4": "rk4",
    "RK23": "bosh3",
    "DOP853": "dop853",
    "Dopri5": "dopri5",
    "Dopri8": "dopri8",
    "Tsit5": "tsit5",
    "Heun": "heun2",
    "Midpoint": "midpoint",
    "Euler": "euler",
    "Bosh3": "bosh3",
    "bogacki-shampine": "bosh3",
    "Dormand-Prince": "dopri5",
    "adaptive-heun": "adaptive_heun",
    "AdaptiveHeun": "adaptive_heun",
    "heun 3": "heun3",
    "RK12": "adaptive_heun",
    "Runge-Kutta": "rk4",
    "dorpi5": "dopri5",
    "dopri6": "dopri5",
    "eulr": "euler",
    "tist5": "tsit5",
    "Kvaerno3": "kvaerno3",
    "KVAERNO5": "kvaerno5",
    "ImplicitEuler": "implicit_euler",
    "backward-euler": "implicit_euler",
    "Trapezoid": "trapezoid",
    "trapezoidal": "crank_nicolson",
    "TR-BDF2": "trbdf2",
}
GRADIENTS_MEANT = {
    "Symplectic": "symplectic",
    "symplectic-adjoint": "symplectic",
    "symplectc": "symplectic",
    "ACA": "aca",
    "MALI": "mali",
    "adjoint": "continuous",
    "BacksolveAdjoint": "continuous",
    "DirectAdjoint": "backprop",
    "back_prop": "backprop",
    "checkpoint": "aca",
    "stage": "stages",
    "AUTO": "auto",
    "RecursiveCheckpointAdjoint": "revolve",
}


@pytest.mark.parametrize(("given", "meant"), METHODS_MEANT.items())
def test_a_method_that_was_meant_is_named(given, meant):
    with pytest.raises(ValueError, match=rf"unknown method '{given}', did you mean '{meant}'\?: methods are euler, "):
        odeint(SmallNet(), start(), T, method=given)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_recognised_in_other_spellings(name):
    spellings = {name.upper(), name.title(), name.replace("_", "-"), f" {name}", f"{name[:-1]}_{name[-1]}"}
    for spelling in spellings - {name}:
        with pytest.raises(ValueError, match=f"did you mean '{name}'"):
            named_method(spelling)


@pytest.mark.parametrize(("given", "meant"), GRADIENTS_MEANT.items())
def test_a_gradient_that_was_meant_is_named(given, meant):
    for refuse in (lambda: odeint(SmallNet(), start(), T, gradient=given), lambda: set_default(gradient=given)):
        with pytest.raises(ValueError, match=rf"unknown gradient '{given}', did you mean '{meant}'\?: gradients are "):
            refuse()


@pytest.mark.parametrize("given", ["Radau", "RADAU", "BDF", "lsoda", "Kvaerno-4"])
def test_a_method_without_counterpart_is_explained_in_every_spelling(given):
    with pytest.raises(ValueError, match=f"method '{given}': .* not available: use 'kvaerno5'"):
        named_method(given)


def test_an_option_given_as_a_keyword_is_sent_to_its_place():
    with pytest.raises(TypeError, match=r"'step_size': give it in options=\{'step_size': ...\}"):
        solve(SmallNet(), start(), T, step_size=0.1)


def test_names_elsewhere_are_none_of_ours_and_belong_to_one():
    methods = {**METHODS, **IMPLICIT_METHODS}
    for other, known in ((OTHER_METHODS, methods), (OTHER_GRADIENTS, (*GRADIENTS, AUTO))):
        assert set(other.values()) <= set(known)
        assert not {bare(name) for name in other} & {bare(name) for name in known}
    assert len({bare(name) for name in OTHER_METHODS}) == sum(len(m.also_called) for m in methods.values())
    assert not {bare(name) for name in OTHER_METHODS} & {bare(name) for name in FOREIGN_METHODS}


@pytest.mark.parametrize("name", ["", "xyz", "?", None, 7, "a" * 10_000])
def test_a_name_like_no_other_has_no_hint(name):
    assert did_you_mean(name, METHODS, OTHER_METHODS) == ""
    assert did_you_mean(name, ()) == ""
