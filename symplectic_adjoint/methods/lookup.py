"""Methods by name, with a word on the ones that other libraries have and this one does not."""

from symplectic_adjoint.errors import did_you_mean
from symplectic_adjoint.methods.registry import DEFAULT_METHOD, METHODS
from symplectic_adjoint.methods.tableau import ButcherTableau

_ADAMS = "Adams methods are not here: take 'rk4' with options={'step_size': ...}, or 'dopri5'"
_IMPLICIT = "implicit methods are not here: take 'dopri5', or 'bosh3' with loose tolerances for a mildly stiff problem"
FOREIGN_METHODS = {
    "explicit_adams": _ADAMS,
    "implicit_adams": _ADAMS,
    "fixed_adams": _ADAMS,
    "scipy_solver": "SciPy's solvers are not here: for RK45 take 'dopri5', for RK23 'bosh3', for DOP853 'dop853'",
    "implicit_euler": _IMPLICIT,
    "implicit_midpoint": _IMPLICIT,
    "trapezoid": _IMPLICIT,
    "radauIIA3": _IMPLICIT,
    "radauIIA5": _IMPLICIT,
    "gl2": _IMPLICIT,
    "gl4": _IMPLICIT,
    "gl6": _IMPLICIT,
    "sdirk2": _IMPLICIT,
    "trbdf2": _IMPLICIT,
    "alf": 'asynchronous leapfrog comes with gradient="mali": take that, and leave method out',
}
"""Methods of torchdiffeq's without a counterpart, and one that is no tableau, with what to use instead."""


def named_method(method: str | None) -> ButcherTableau:
    """Return the method of that name, the default for None. Raises ValueError for any other name."""
    name = DEFAULT_METHOD if method is None else method
    if isinstance(name, str) and name in FOREIGN_METHODS:
        raise ValueError(f"method {name!r}: {FOREIGN_METHODS[name]}")
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, METHODS)}: methods are {', '.join(METHODS)}")
    return METHODS[name]
