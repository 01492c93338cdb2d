"""The closure variables and globals that func assigns while it runs, itself or through code that it calls."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint.field.code_names import CodeNames, attributes_read
from symplectic_adjoint.field.held_values import is_kind, own_attributes, referent, slots
from symplectic_adjoint.field.libraries import OPAQUE, is_library_name, is_library_value, own_class
from symplectic_adjoint.field.module_values import hooks_of
from symplectic_adjoint.field.stores import Variables
from symplectic_adjoint.field.watched_values import MOST_WATCHED

_CONTAINERS: Any = (list, tuple, set, frozenset)


class AssignedVariables:
    """The variables that func assigns, which stay the caller's: cells by their id, globals by their dict's id and name.

    The search follows every value that func's code names, through functions, methods, objects and containers.
    namespaces: those whose globals some code may assign by any name. is_library: whether a function is not the user's.
    """

    def __init__(self, funcs: Sequence[Any], is_library: Callable[[FunctionType], bool]):
        self.cells: dict[int, tuple[str, CellType]] = {}
        self.globals: dict[tuple[int, str], dict[str, Any]] = {}
        self.namespaces: dict[int, dict[str, Any]] = {}
        self._is_library = is_library
        self._seen = set[int]()
        self._names = set[str]()
        """The attributes that the code found so far reads."""
        self._owners: list[Any] = []
        """The objects, classes and modules found so far, of which only attributes in names are followed."""
        pending = list(funcs)
        while pending:
            known = len(self._names)
            while pending:
                pending += self._found_in(pending.pop())
            if len(self._names) > known:
                names = frozenset(self._names)
                pending = [value for owner in self._owners for value in _named(owner, names)]

    def variables(self) -> Variables:
        """Return them as a store."""
        return Variables(self.cells.values(), [(name, own) for (_, name), own in self.globals.items()])

    def _found_in(self, x: Any) -> Iterable[Any]:
        """Return the values to follow in a value met for the first time."""
        x = referent(x)
        if is_kind(x, (*OPAQUE, Tensor)) or id(x) in self._seen:
            return ()
        self._seen.add(id(x))
        if is_kind(x, FunctionType):
            return self._found_in_function(x)
        if is_kind(x, MethodType):
            return x.__func__, x.__self__
        if is_kind(x, partial):
            return x.func, *x.args, *x.keywords.values()
        if is_kind(x, dict):
            return list(dict.values(x)) if dict.__len__(x) <= MOST_WATCHED else ()
        for kind in _CONTAINERS:
            if is_kind(x, kind):
                return list(kind.__iter__(x)) if kind.__len__(x) <= MOST_WATCHED else ()
        if is_kind(x, nn.Module):
            return self._found_in_module(x)
        return self._found_in_object(x)

    def _found_in_function(self, x: FunctionType) -> Iterable[Any]:
        found = [x.__dict__[key] for key in ("_torchdynamo_orig_callable", "__wrapped__") if key in x.__dict__]
        if self._is_library(x):
            return found
        names, own = CodeNames.of(x.__code__), x.__globals__
        self._names |= names.attributes
        self.globals |= {(id(own), name): own for name in names.assigned_globals}
        if "globals" in names.globals and "globals" not in own:
            self.namespaces[id(own)] = own
        for variable, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            if variable in names.assigned_variables:
                self.cells[id(cell)] = variable, cell
            try:
                found.append(cell.cell_contents)
            except ValueError:  # it has no value yet
                continue
        found += [own[name] for name in names.globals if name in own]
        found += [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        return found + self._found_in_owner(x)

    def _found_in_module(self, x: nn.Module) -> Iterable[Any]:
        """Return what a module and its submodules run; of torch's own only hooks and what replaces forward."""
        found, users = [], dict[type, bool]()
        for module in x.modules():
            self._seen.add(id(module))
            kind, own = type(module), vars(module)
            if kind not in users:
                users[kind] = own_class(kind) is not None
            if users[kind] or module is x:
                found += self._found_in_owner(module)
            elif "forward" in own:
                found.append(own["forward"])
            found += hooks_of(module)
        return found

    def _found_in_object(self, x: Any) -> Iterable[Any]:
        """Return what an object, a class or a Python module has that code reads."""
        wrapped = (own_attributes(x) or {}).get("__wrapped__")  # of a function with a cache, for example
        if wrapped is None and is_library_value(x):
            return ()
        return [wrapped, *self._found_in_owner(x)]

    def _found_in_owner(self, x: Any) -> list[Any]:
        self._owners.append(x)
        return _named(x, frozenset(self._names))


def _named(x: Any, names: frozenset[str]) -> list[Any]:
    """Return what an object, a class, a function or a module holds under these names, and its methods."""
    is_class = is_kind(x, type)
    own = {} if is_class else own_attributes(x) or {}
    if is_kind(x, (FunctionType, ModuleType)):
        return [own[key] for key in names & own.keys()]
    kind = x if is_class else type(x)
    names |= {"__init__", "__new__"} if is_class else {"forward"} if is_kind(x, nn.Module) else set()
    if any(not is_library_name(base.__module__) for base in kind.__mro__):
        names = attributes_read(kind, names)
    found = [own[key] for key in names & own.keys()]
    if not is_class:
        found += [value for key, value in slots(x).items() if key in names]
    for base in kind.__mro__:
        if not is_library_name(base.__module__):
            held = vars(base)
            found += [y for key in names & held.keys() for y in _functions_of(held[key])]
    return found


def _functions_of(member: Any) -> tuple[Any, ...]:
    """Return the functions that a property, a class method or the like calls; anything else itself."""
    if is_kind(member, property):
        return member.fget, member.fset
    if is_kind(member, (classmethod, staticmethod)):
        return (member.__func__,)
    return (member.func if is_kind(member, cached_property) else member,)
