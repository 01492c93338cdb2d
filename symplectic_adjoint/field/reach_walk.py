"""The walk from func over everything that its code names.

A plain function, lambda or partial is replaced by a copy that keeps what its closure variables and globals hold now, so
that a variable which the caller assigns afterwards does not change this solve. The caller's own variables, containers
and objects are never written to.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from operator import attrgetter, is_, methodcaller
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ProxyTypes, ref

from torch import Tensor, nn

from symplectic_adjoint.field.assigned_variables import AssignedVariables
from symplectic_adjoint.field.code_names import CodeNames, attributes_read
from symplectic_adjoint.field.copied_variables import CopiedVariables
from symplectic_adjoint.field.held_values import is_kind, own_attributes, referent, shown_key
from symplectic_adjoint.field.libraries import BOUND, CACHED, OPAQUE, is_library_name, is_library_value, own_class
from symplectic_adjoint.field.module_tensors import STANDARD_ATTRIBUTES
from symplectic_adjoint.field.module_values import hooks_of
from symplectic_adjoint.field.places import (
    BoundPartial,
    CellHolder,
    DefaultsHolder,
    Holder,
    ListHolder,
    Place,
    TupleHolder,
    tuple_like,
)
from symplectic_adjoint.field.reach import Reach, ReachedTensor
from symplectic_adjoint.field.readable_values import (
    COMPUTED_NAMES,
    CONTAINERS,
    MAPPINGS,
    entries_of,
    named_attributes_of,
    other_attributes_of,
)
from symplectic_adjoint.field.split_function import SplitFunction
from symplectic_adjoint.field.stores import Attributes, Entries, Store
from symplectic_adjoint.field.watched_values import MOST_WATCHED, WatchedValues

MOST_NESTED = 6
"""How deep containers and objects are followed."""


def reach_of(func: Any) -> Reach:
    """Return what func reaches. func may be a module, a function, a bound method, a partial or any callable object.

    No code of the caller's runs.
    """
    func = func if referent(func) is None else referent(func)
    walk, copied = _walked(func, computed_names=False)
    if walk.computed_names:  # known only now, and true of what was followed before
        walk, copied = _walked(func, computed_names=True)
    walk.copied.note()
    return Reach(
        copied,
        tuple(walk.roots),
        tuple(walk.modules.values()),
        tuple(walk.tensors),
        tuple(walk.watched),
        tuple(walk.values),
        (*walk.stores, *walk.assigned_store),
        walk.names,
        walk.computed_names,
        walk.copied,
    )


def _walked(func: Any, *, computed_names: bool) -> tuple["_Walk", Callable[..., Any]]:
    """Return a walk from func, and the function to call."""
    if type(func) is not SplitFunction:
        walk = _Walk(func, computed_names=computed_names)
        return walk, walk.follow(func, "func", None, 0)
    walk = _Walk(func.explicit, func.implicit, computed_names=computed_names)
    explicit = walk.follow(func.explicit, "explicit", None, 0)
    return walk, SplitFunction(explicit, walk.follow(func.implicit, "implicit", None, 0))


class _Walk:
    """One walk from func, or from its parts, over everything that their code names.

    computed_names: whether the code may also read what it does not name. Leaves found so are collected, and nothing
    else: an object's other attributes may be anything.
    """

    def __init__(self, *funcs: Any, computed_names: bool):
        self.roots: list[tuple[str, nn.Module]] = []
        self.modules: dict[int, nn.Module] = {}
        self.tensors: list[ReachedTensor] = []
        self.watched: list[WatchedValues] = []
        self.values: list[tuple[str, Any]] = []
        self.stores: list[Store] = []
        self.names: frozenset[str] = frozenset()
        """The attributes that the functions found so far read."""
        self._all_attributes, self._found_getter = computed_names, False
        self._is_library = partial(_is_library, _package_of(funcs[0]))
        self._copies: dict[int, Any] = {}
        self._cells: dict[int, CellType] = {}
        self._seen: set[int] = set()
        self._funcs = funcs
        self.copied = CopiedVariables()
        """The variables of functions that were copied."""

    @cached_property
    def assigned(self) -> AssignedVariables:
        """The variables that func assigns."""
        return AssignedVariables(self._funcs, self._is_library)

    @property
    def computed_names(self) -> bool:
        """Whether the code found so far reaches attributes by names that it computes."""
        return self._found_getter or self._reads_all(self.names)

    @property
    def assigned_store(self) -> list[Store]:
        """Those variables, if a function was copied: otherwise nothing is searched for them."""
        return [self.assigned.variables()] if self._copies else []

    def follow(self, x: Any, name: str, place: Place | None, depth: int) -> Any:
        """Collect what x reaches; return x, or the copy to be used in its place if it is or holds a plain function.

        place: where a copied function holds x. None if x belongs to the caller: then nothing in it is copied, except
        func itself, at depth 0.
        """
        if is_kind(x, OPAQUE):
            self.values.append((name, x))
            if is_kind(x, BOUND):  # held.get, say
                self.follow(x.__self__, f"{name}.__self__", None, depth + 1)
            return x
        if is_kind(x, ProxyTypes):  # an object that is gone is none that func reads
            self.follow(referent(x), name, None, depth + 1)
            return x
        if is_kind(x, Tensor):
            self.tensors.append(ReachedTensor(name, ref(x), place))
        elif is_kind(x, nn.Module):
            self._follow_module(x, name, depth)
        elif is_kind(x, FunctionType):
            return self._follow_function(x, name, depth, copying=place is not None or depth == 0)
        elif is_kind(x, MethodType):
            return self._follow_method(x, name, depth, copying=place is not None or depth == 0)
        elif is_kind(x, partial):
            return self._follow_partial(x, name, depth, copying=place is not None or depth == 0)
        elif is_kind(x, (attrgetter, methodcaller)):
            self._found_getter = True
        elif is_kind(x, CACHED):
            self.follow(x.__wrapped__, name, None, depth + 1)
        elif depth < MOST_NESTED:
            if is_kind(x, tuple):
                holder = None if place is None else TupleHolder(place)
                values = list(tuple.__iter__(x))
                items = [self.follow(v, f"{name}[{i}]", _at(holder, i), depth + 1) for i, v in enumerate(values)]
                return x if all(map(is_, values, items)) else tuple_like(x, items)
            self._follow_holder(x, name, depth)
        return x

    def _follow_holder(self, x: Any, name: str, depth: int) -> None:
        """Follow and watch the values of a container, object, class or Python module that the caller owns."""
        if id(x) in self._seen:
            return
        self._seen.add(id(x))
        form, others = "{}.{}", {}
        if is_kind(x, CONTAINERS):
            if is_kind(x, (list, dict)):
                self.stores.append(Entries(name, x))
            read, form = partial(entries_of, x, self.names), "{}[{!r}]"
        elif is_library_value(x):
            return
        elif is_kind(x, ModuleType):
            read = partial(named_attributes_of, x, self.names)
        else:
            kind = x if is_kind(x, type) else type(x)
            kind = own_class(kind) or kind
            names = attributes_read(kind, self.names)
            read = partial(named_attributes_of, x, names)
            if kind is not x and self._reads_all(names):
                others = other_attributes_of(x, names)
            if kind is not x and own_attributes(x) is not None:
                self.stores.append(Attributes(name, x))
            if kind is not x:
                self._follow_holder(kind, kind.__name__, depth)
        self._follow_values(name, read, form, depth)
        self._collect_leaves(others, name, form)
        entries = entries_of(x) if is_kind(x, MAPPINGS) else {}
        if len(entries) <= MOST_WATCHED:  # the key of an entry may be computed
            for key, value in entries.items():
                self.follow(value, form.format(name, shown_key(key)), None, depth + 1)

    def _follow_values(self, name: str, read: Callable[[], Mapping[Any, Any]], form: str, depth: int) -> None:
        """Follow and watch the values that `read` returns, by key."""
        values = read()
        if not 0 < len(values) <= MOST_WATCHED:
            self._collect_leaves(values, name, form)
            return
        self.watched.append(WatchedValues(name, read, form))
        for key, value in values.items():
            self.follow(value, form.format(name, shown_key(key)), None, depth + 1)

    def _reads_all(self, names: frozenset[str]) -> bool:
        """Return whether code that reads these names may read every attribute."""
        return self._all_attributes or not COMPUTED_NAMES.isdisjoint(names)

    def _collect_leaves(self, values: Mapping[Any, Any], name: str, form: str, nested: int = 0) -> None:
        """Collect the leaves that require a gradient in values that func may read by a key or name that it computes."""
        for key, x in values.items():
            path = form.format(name, shown_key(key))
            if is_kind(x, Tensor):
                if x.requires_grad and x.is_leaf:
                    self.tensors.append(ReachedTensor(path, ref(x), None))
            elif is_kind(x, nn.Module):
                if id(x) not in self.modules:
                    self._collect_leaves(dict(x.named_parameters()), path, "{}.{}")
            elif is_kind(x, CONTAINERS) and nested < 2 and len(entries := entries_of(x)) <= MOST_WATCHED:
                self._collect_leaves(entries, path, "{}[{!r}]", nested + 1)

    def _follow_module(self, module: nn.Module, name: str, depth: int) -> None:
        if id(module) in self.modules:
            return
        self.roots.append((name, module))
        for path, sub in module.named_modules():
            if id(sub) not in self.modules:
                self.modules[id(sub)] = sub
                self._follow_attributes(sub, f"{name}.{path}" if path else name, depth)

    def _follow_attributes(self, module: nn.Module, name: str, depth: int) -> None:
        """Follow the plain attributes of a module: its tensors, and what its own code reads."""
        holder, kind = vars(module), own_class(type(module))
        names: frozenset[str] = frozenset()
        if kind is not None:
            names = attributes_read(kind, self.names | {"forward"})
            self.names |= names
            self._follow_class(kind, depth)
        for key, x in holder.items():
            if key in STANDARD_ATTRIBUTES or is_kind(x, OPAQUE):
                continue
            if is_kind(x, Tensor):
                self.tensors.append(ReachedTensor(f"{name}.{key}", ref(x), None))
            elif key in names:
                self.follow(x, f"{name}.{key}", (holder, key) if is_kind(x, tuple) else None, depth + 1)
            elif self._reads_all(names):
                self._collect_leaves({key: x}, name, "{}.{}")
        for hook in hooks_of(module):
            self.follow(hook, f"a hook of {name}", None, depth + 1)

    def _follow_class(self, kind: type, depth: int) -> None:
        """Follow what the forward method of a module's class reads: its closure, its globals, and the class."""
        forward: Any = getattr(kind, "forward", None)
        if is_kind(forward, FunctionType) and not self._is_library(forward):
            self._follow_function(forward, kind.__name__, depth, copying=False)
        self._follow_holder(kind, kind.__name__, depth)

    def _follow_method(self, method: MethodType, name: str, depth: int, *, copying: bool) -> Any:
        owner: Any = method.__self__
        function: Any = method.__func__
        if not is_kind(function, FunctionType):
            return method
        self.names |= CodeNames.of(function.__code__).attributes | {function.__name__}
        if is_kind(owner, nn.Module):
            self._follow_module(owner, name, depth)
        else:
            self._follow_holder(owner, name, depth)
        copied = self._follow_function(function, name, depth, copying=copying)
        return method if copied is function else MethodType(copied, owner)

    def _follow_partial(self, x: "partial[Any]", name: str, depth: int, *, copying: bool) -> Any:
        copied = BoundPartial(x.func, list(x.args), dict(x.keywords))
        at_args, at_keywords, at_func = ListHolder(copied.args), copied.keywords, vars(copied)
        for i, value in enumerate(x.args):
            at_args[i] = self.follow(value, f"{name}.args[{i}]", (at_args, i) if copying else None, depth + 1)
        for key, value in x.keywords.items():
            at_keywords[key] = self.follow(value, key, (at_keywords, key) if copying else None, depth + 1)
        at_func["func"] = self.follow(x.func, name, (at_func, "func") if copying else None, depth)
        return copied if copying else x

    def _follow_function(self, function: FunctionType, name: str, depth: int, *, copying: bool) -> Any:
        """Follow a function's variables; return its copy, which holds what they hold now, or the function itself."""
        if id(function) in self._copies:
            return self._copies[id(function)]
        inner = getattr(function, "_torchdynamo_orig_callable", None)  # which is cached by the identity of its globals
        if inner is not None or self._is_library(function):
            self.follow(inner or getattr(function, "__wrapped__", None), name, None, depth + 1)
            return function
        names = CodeNames.of(function.__code__)
        self.names |= names.attributes
        self.values.append((name, id(function.__code__)))
        if function.__dict__:
            self._follow_values(name, partial(named_attributes_of, function, self.names), "{}.{}", depth)
        if not copying:
            if id(function) not in self._seen:
                self._seen.add(id(function))
                self._follow_cells(function, names, depth)
                self._follow_globals(function, names, depth)
            return function
        namespace = self._copied_globals(function, names)
        cells = [self._copied_cell(cell) for cell in function.__closure__ or ()]
        copied = FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, tuple(cells))
        copied.__kwdefaults__ = None if function.__kwdefaults__ is None else dict(function.__kwdefaults__)
        copied.__qualname__, copied.__dict__ = function.__qualname__, function.__dict__
        self._copies[id(function)] = copied
        for variable, cell, own in zip(function.__code__.co_freevars, function.__closure__ or (), cells, strict=True):
            if own is not cell and not _is_set(own):
                own.cell_contents = cell.cell_contents
                self.copied.add_cell(variable, cell, own)
                own.cell_contents = self.follow(own.cell_contents, variable, (CellHolder(own), variable), depth + 1)
            elif own is cell and _is_set(cell):
                self.follow(cell.cell_contents, variable, None, depth + 1)
        if namespace is function.__globals__:
            self._follow_globals(function, names, depth)
        else:
            for key in namespace.keys() & function.__globals__.keys():
                if self._is_value(namespace[key]):
                    self.copied.add_global(function.__globals__, key, namespace)
            self._bind(namespace, depth)
        for i, value in enumerate(function.__defaults__ or ()):
            holder = DefaultsHolder(copied)
            holder[i] = self.follow(value, f"{name}.__defaults__[{i}]", (holder, i), depth + 1)
        self._bind(copied.__kwdefaults__ or {}, depth)
        return copied

    def _follow_cells(self, function: FunctionType, names: CodeNames, depth: int) -> None:
        """Follow the closure variables of a function that is not copied."""
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if _is_set(cell) and variable not in names.assigned_variables:
                self.follow(cell.cell_contents, variable, None, depth + 1)

    def _follow_globals(self, function: FunctionType, names: CodeNames, depth: int) -> None:
        """Follow and watch the globals that a function names, if it reads them where the caller does."""
        own = function.__globals__
        chosen = frozenset(x for x in names.globals - names.assigned_globals if x in own and self._is_value(own[x]))
        if chosen:
            self.watched.append(WatchedValues("global", partial(_chosen, own, chosen), "{} {}"))
        for key in sorted(chosen):
            self.follow(own[key], key, None, depth + 1)

    def _bind(self, holder: dict[str, Any], depth: int) -> None:
        """Follow the values of a copy's own dict, and put the copies of functions into it."""
        for key, value in list(holder.items()):
            if not key.startswith("__"):
                holder[key] = self.follow(value, key, (holder, key), depth + 1)

    def _copied_cell(self, cell: CellType) -> CellType:
        """Return a new cell, the same one for all copies; the cell itself if func assigns it or has not done so yet."""
        if id(cell) in self.assigned.cells or not _is_set(cell):
            return cell
        return self._cells.setdefault(id(cell), CellType())

    def _copied_globals(self, function: FunctionType, names: CodeNames) -> dict[str, Any]:
        """Return a namespace with the globals that the function names, or its own one.

        Its own if it assigns them, or if none holds a value that the caller could change.
        """
        own = function.__globals__
        held = function.__builtins__
        used = {x for x in names.globals if x in own}
        unknown = any(x not in own and x not in held for x in names.globals)
        assigned = id(own) in self.assigned.namespaces or any((id(own), x) in self.assigned.globals for x in used)
        if unknown or assigned or "globals" in names.globals or not any(self._is_value(own[x]) for x in used):
            return own
        return {**{x: own[x] for x in used}, "__builtins__": held, "__name__": own.get("__name__")}

    def _is_value(self, x: Any) -> bool:
        """Return whether a global is a value that the caller may change, not an imported module, class or function."""
        if is_kind(x, ModuleType):
            return not is_library_value(x)
        if is_kind(x, FunctionType):
            return not self._is_library(x)
        return not is_kind(x, (type, BuiltinFunctionType))


def _at(holder: Holder | None, key: Any) -> Place | None:
    return None if holder is None else (holder, key)


def _is_set(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (raises if the variable has no value yet)
    except ValueError:
        return False
    return True


def _chosen(x: Mapping[str, Any], names: frozenset[str]) -> Mapping[str, Any]:
    return {key: x[key] for key in names if key in x}


def _package_of(func: Any) -> str:
    """Return the name of the package whose code func is."""
    while is_kind(func, (partial, MethodType)):
        func = func.func if is_kind(func, partial) else func.__func__
    name = func.__globals__.get("__name__") if is_kind(func, FunctionType) else type(func).__module__
    return (name or "").partition(".")[0]


def _is_library(package: str, function: FunctionType) -> bool:
    """Return whether a function belongs to an installed package other than that of func, and holds no values."""
    name = function.__globals__.get("__name__") or ""
    if is_library_name(name):
        return True
    own = name.partition(".")[0] == package or function.__closure__
    return not own and "site-packages" in function.__code__.co_filename
