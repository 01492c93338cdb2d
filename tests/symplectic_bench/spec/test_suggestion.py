"""Names that are not known: the message says which one was meant."""

import pytest

from symplectic_bench.contenders.registry import decline
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import SuiteError, load_suite
from tests.symplectic_bench.sample_cells import make_cell


@pytest.mark.parametrize(
    ("got", "meant"),
    [
        ("dopri", "dopri5"),
        ("DOPRI-8", "dopri8"),
        ("Van der Pol", "van_der_pol"),
        ("rk 4", "rk4"),
        ("vanderpool", "van_der_pol"),
    ],
)
def test_the_name_that_was_meant_is_found_in_any_spelling(got, meant):
    names = ["dopri5", "dopri8", "rk4", "van_der_pol"]
    assert suggestion(got, names) == f"; did you mean {meant!r}? (there are: {', '.join(names)})"


def test_a_name_like_no_other_gets_the_list_only():
    assert suggestion("xyz", ["dopri5", "rk4"]) == " (there are: dopri5, rk4)"
    assert suggestion("xyz", []) == " (there are: none)"
    assert suggestion("", ["rk4"]) == " (there are: rk4)"


def test_a_name_used_elsewhere_counts_only_for_what_is_allowed():
    assert "did you mean 'dopri5'?" in suggestion("ode45", ["rk4", "dopri5"], {"ode45": "dopri5"})
    assert "did you mean" not in suggestion("ode45", ["rk38"], {"ode45": "dopri5"})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("RK45", "dopri5"),
        ("RK4", "rk4"),
        ("Tsit5", "tsit5"),
        ("DOP853", "dop853"),
        ("rk23", "bosh3"),
        ("heun", "heun2"),
    ],
)
def test_a_suites_method_is_known_by_its_names_elsewhere(given, meant):
    suite = load_suite("quick")
    wrong = suite.model_copy(update={"block": [suite.block[0].model_copy(update={"method": [given]})]})
    with pytest.raises(SuiteError, match=rf"method: unknown '{given}'; did you mean '{meant}'\?"):
        expand(wrong, load_vocabulary())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contender": "Ours"}, "there is no contender 'Ours'; did you mean 'ours'?"),
        ({"contender": "torchdifeq"}, "there is no contender 'torchdifeq'; did you mean 'torchdiffeq'?"),
        ({"gradient": "ACA"}, "has no gradient 'ACA'; did you mean 'aca'?"),
        ({"gradient": "symplectic_adjoint"}, "has no gradient 'symplectic_adjoint'; did you mean 'symplectic'?"),
        ({"gradient": "symplectc"}, "has no gradient 'symplectc'; did you mean 'symplectic'?"),
        ({"contender": "torchdiffeq", "gradient": "adjoint"}, "has no gradient 'adjoint'; did you mean 'continuous'?"),
        ({"contender": "diffrax", "gradient": "DirectAdjoint"}, "'DirectAdjoint'; did you mean 'backprop'?"),
        ({"contender": "paper", "gradient": "Symplectic"}, "has no gradient 'Symplectic'; did you mean 'symplectic'?"),
    ],
)
def test_a_contender_or_gradient_that_was_meant_is_named(changes, words):
    assert words in (decline(make_cell(**changes)) or "")
