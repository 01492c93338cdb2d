"""The entries of sys.modules through which code that imports torchdiffeq gets this library."""

import dis
import pkgutil
import sys
import threading
from collections.abc import Mapping
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Self

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.errors import NotReplacedWarning, warn_once
from symplectic_adjoint.methods.registry import METHODS
from symplectic_adjoint.replacement import functions
from symplectic_adjoint.replacement.functions import NAMES_THERE, not_replaced
from symplectic_adjoint.replacement.genuine import FUNCTIONS, PACKAGE, entries, genuine, genuine_modules

VERSION = "0.2.5"
"""The release of torchdiffeq whose meaning of every argument the functions follow."""
SUBMODULES = (
    "odeint", "adjoint", "misc", "solvers", "rk_common", "fixed_grid", "fixed_adams", "dopri5", "dopri8", "bosh3",
    "adaptive_heun", "fehlberg2", "interp", "event_handling", "scipy_wrapper",
)  # fmt: skip
"""The modules of torchdiffeq._impl in that release."""
REFUSED = {"ImplicitFnGradientRerouting": "the gradient of the event time is part of what odeint returns"}
"""Names of torchdiffeq that would give wrong gradients together with the replaced functions."""

_lock = threading.Lock()


@untraced
def replace_torchdiffeq(*, rebind: bool = False) -> "Replacement":
    """Let code that imports torchdiffeq from now on get this library instead, whether torchdiffeq is installed or not.

    The functions mean torchdiffeq's: its rk4 is the 3/8 rule, adaptive methods ignore step_size. Methods and names that
    only torchdiffeq has are its own if it is installed, with a NotReplacedWarning. The gradient is that of set_default.

    Holds for the whole process, from the call on; used as a context manager, until its end. Modules that imported
    torchdiffeq before keep what they have, and are named in a warning; rebind: replace their global names too.
    """
    with _lock:
        genuine_modules()
        return Replacement(rebind=rebind)


class Replacement:
    """torchdiffeq replaced; `restore`, or leaving the context, puts back what was there. Nested ones end in order."""

    def __init__(self, *, rebind: bool):
        self._before = entries()
        own = _own_modules()
        names = _names_held(own)
        for name in self._before:
            del sys.modules[name]
        sys.modules.update(own)
        self._rebound = [(module, name, vars(module)[name]) for module, name, _ in names] if rebind else []
        if rebind:
            for module, name, ours in names:
                setattr(module, name, ours)
        elif names:
            holders = ", ".join(sorted({module.__name__ for module, _, _ in names}))
            warn_once(
                NotReplacedWarning,
                holders,
                f"imported before, so that torchdiffeq itself is still used by: {holders}. Call replace_torchdiffeq() "
                "before they are imported, or give rebind=True",
            )

    def restore(self) -> None:
        """Put back what was there. Modules that imported torchdiffeq in between keep the replacement."""
        with _lock:
            for name in entries():
                del sys.modules[name]
            sys.modules.update(self._before)
            for module, name, theirs in self._rebound:
                setattr(module, name, theirs)
            self._rebound = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()


class _Module(ModuleType):
    """A module in the place of one of torchdiffeq's, which has the names that are replaced."""

    def __init__(self, name: str, own: Mapping[str, Any], *, is_package: bool = False):
        super().__init__(name, "In the place of torchdiffeq's module of this name: see symplectic_adjoint.")
        self.__spec__ = ModuleSpec(name, None, is_package=is_package)  # find_spec asks for it
        vars(self).update(own, **({"__path__": []} if is_package else {}))

    def __getattr__(self, name: str) -> Any:
        """Return torchdiffeq's own object of this name, with a warning; raise for one that cannot be provided."""
        path = f"{self.__name__}.{name}"
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name not in REFUSED and genuine(path) is not None:
            return not_replaced(path)
        reason = REFUSED.get(name) or (
            "torchdiffeq has no such name either" if genuine_modules() else "install torchdiffeq, if it has that name"
        )
        message = f"{path} is not available while symplectic_adjoint replaces torchdiffeq: {reason}"
        frame = sys._getframe(1)
        if (
            frame.f_code.co_code[frame.f_lasti] == dis.opmap["IMPORT_FROM"]
        ):  # which replaces an AttributeError's message
            raise ImportError(message, name=self.__name__)
        raise AttributeError(message, name=name, obj=self)


def _own_modules() -> dict[str, ModuleType]:
    """Return a module for each of torchdiffeq's, linked like those."""
    public = {name: getattr(functions, name) for name in FUNCTIONS}
    solves = {name: public[name] for name in FUNCTIONS if name != "odeint_adjoint"}
    if not genuine_modules():
        solves["SOLVERS"] = {name: partial(_no_solver, name) for name in _method_names()}
    own = {"odeint": solves, "adjoint": {name: public[name] for name in ("odeint", "odeint_adjoint")}}
    path = getattr(genuine_modules().get(f"{PACKAGE}._impl"), "__path__", [])
    submodules = {*SUBMODULES, *(found.name for found in pkgutil.iter_modules(path))}
    impl = f"{PACKAGE}._impl"
    modules = {name: _Module(f"{impl}.{name}", own.get(name, {})) for name in sorted(submodules)}
    linked = _Module(impl, {**modules, **public}, is_package=True)  # whose odeint is the function, as in torchdiffeq
    package = _Module(PACKAGE, {**public, "_impl": linked, "__version__": VERSION}, is_package=True)
    return {PACKAGE: package, impl: linked, **{f"{impl}.{name}": module for name, module in modules.items()}}


def _method_names() -> list[str]:
    """Return the names that torchdiffeq's users can give as a method."""
    return sorted({*METHODS} - {*NAMES_THERE.values()})


def _no_solver(name: str, *arguments: Any, **keywords: Any) -> None:
    """Refuse to make a solver object, for which torchdiffeq must be installed."""
    del arguments, keywords
    raise NotImplementedError(
        f"torchdiffeq's solver class of {name!r} is not available while symplectic_adjoint replaces torchdiffeq: call "
        "odeint, or install torchdiffeq"
    )


def _names_held(own: Mapping[str, ModuleType]) -> list[tuple[ModuleType, str, Any]]:
    """Return (module, global name, replacement) for each name that leads to torchdiffeq itself."""
    replacements = {id(module): own[name] for name, module in genuine_modules().items() if name in own}
    for name in FUNCTIONS:
        if (theirs := genuine(f"{PACKAGE}.{name}")) is not None:
            replacements[id(theirs)] = getattr(functions, name)
    skipped = (PACKAGE, __name__.partition(".")[0])
    return [
        (module, name, replacements[id(value)])
        for key, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and key.partition(".")[0] not in skipped
        for name, value in list(vars(module).items())
        if id(value) in replacements
    ]
