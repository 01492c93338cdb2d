"""Methods by name, with hints for methods of other libraries that this one does not have."""

from symplectic_adjoint.errors import bare, did_you_mean
from symplectic_adjoint.methods.leapfrog import NAME as LEAPFROG
from symplectic_adjoint.methods.registry import ALIASES, DEFAULT_METHOD, METHODS, OTHER_NAMES
from symplectic_adjoint.methods.tableau import ButcherTableau

_ADAMS = "Adams methods are not available: use 'rk4' with options={'step_size': ...}, or 'dopri5'"
_MULTISTEP = "implicit multistep methods are not available: use 'kvaerno5', or 'kvaerno3' with loose tolerances"
_RADAU = "fully implicit methods that control their steps are not available: use 'kvaerno5', or 'radauIIA5' on a grid"
_KVAERNO4 = "this method is not available: use 'kvaerno5' or 'kvaerno3'"
_KENCARP = "this method is not available: use 'kencarp4', or 'kvaerno5' if func is not a pair of functions"
FOREIGN_METHODS = {
    "explicit_adams": _ADAMS,
    "implicit_adams": _ADAMS,
    "fixed_adams": _ADAMS,
    "scipy_solver": "SciPy's solvers are not available: for RK45 use 'dopri5', for RK23 'bosh3', for DOP853 'dop853'",
    "Radau": _RADAU,
    "BDF": _MULTISTEP,
    "LSODA": _MULTISTEP,
    "Kvaerno4": _KVAERNO4,
    "KenCarp3": _KENCARP,
    "KenCarp5": _KENCARP,
    LEAPFROG: 'asynchronous leapfrog comes with gradient="mali": use that, and leave method out',
}
"""Alternatives to the methods of torchdiffeq, SciPy and diffrax without a counterpart, and to one without a tableau."""

FIXED_IN_TORCHDIFFEQ = ("sdirk2", "trbdf2")
"""Methods with an error estimate to which torchdiffeq's repository gives fixed steps."""

_FOREIGN_SPELLINGS = {bare(name): hint for name, hint in FOREIGN_METHODS.items()}


def named_method(method: str | None) -> ButcherTableau:
    """Return the method of this name, or the default method for None. Raises ValueError for an unknown name."""
    name = DEFAULT_METHOD if method is None else method
    if isinstance(name, str) and (found := METHODS.get(ALIASES.get(name, name))):
        return found
    if isinstance(name, str) and (hint := _FOREIGN_SPELLINGS.get(bare(name))):
        raise ValueError(f"method {name!r}: {hint}")
    near = did_you_mean(name, (*METHODS, *ALIASES), OTHER_NAMES)
    raise ValueError(f"unknown method {name!r}{near}: methods are {', '.join(METHODS)}")
