"""Methods by name, with hints for methods of other libraries that this one does not have."""

from symplectic_adjoint.errors import bare, did_you_mean
from symplectic_adjoint.methods.leapfrog import NAME as LEAPFROG
from symplectic_adjoint.methods.registry import DEFAULT_METHOD, METHODS, OTHER_NAMES
from symplectic_adjoint.methods.tableau import ButcherTableau

_ADAMS = "Adams methods are not available: use 'rk4' with options={'step_size': ...}, or 'dopri5'"
_IMPLICIT = (
    "implicit methods are not available: use 'dopri5', or 'bosh3' with loose tolerances for a mildly stiff problem"
)
FOREIGN_METHODS = {
    "explicit_adams": _ADAMS,
    "implicit_adams": _ADAMS,
    "fixed_adams": _ADAMS,
    "scipy_solver": "SciPy's solvers are not available: for RK45 use 'dopri5', for RK23 'bosh3', for DOP853 'dop853'",
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
    "Radau": _IMPLICIT,
    "BDF": _IMPLICIT,
    "LSODA": _IMPLICIT,
    "Kvaerno3": _IMPLICIT,
    "Kvaerno4": _IMPLICIT,
    "Kvaerno5": _IMPLICIT,
    "KenCarp3": _IMPLICIT,
    "KenCarp4": _IMPLICIT,
    "KenCarp5": _IMPLICIT,
    LEAPFROG: 'asynchronous leapfrog comes with gradient="mali": use that, and leave method out',
}
"""Alternatives to the methods of torchdiffeq, SciPy and diffrax without a counterpart, and to one without a tableau."""

_FOREIGN_SPELLINGS = {bare(name): hint for name, hint in FOREIGN_METHODS.items()}


def named_method(method: str | None) -> ButcherTableau:
    """Return the method of this name, or the default method for None. Raises ValueError for an unknown name."""
    name = DEFAULT_METHOD if method is None else method
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and (hint := _FOREIGN_SPELLINGS.get(bare(name))):
        raise ValueError(f"method {name!r}: {hint}")
    near = did_you_mean(name, METHODS, OTHER_NAMES)
    raise ValueError(f"unknown method {name!r}{near}: methods are {', '.join(METHODS)}")
