"""The f calls that a gradient cannot avoid."""

from symplectic_adjoint import METHODS
from symplectic_bench.analysis.f_call_formula import is_fsal


def test_fsal_is_the_librarys():
    assert [name for name in METHODS if is_fsal(name)] == [name for name, method in METHODS.items() if method.fsal]
    assert not is_fsal("unheard-of")
