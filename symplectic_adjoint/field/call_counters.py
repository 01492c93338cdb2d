"""Counters of calls that func keeps itself (self.nfe += 1), which compiled and captured code leaves to the library."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.held_values import is_kind, own_attributes
from symplectic_adjoint.field.stores import Attributes, Store, changes
from symplectic_adjoint.field.watched_values import same_value

Number = int | float


@dataclass(frozen=True)
class Counter:
    """A number that every call of func raises by `step`."""

    store: Store
    key: Any
    step: Number

    @property
    def path(self) -> str:
        """How func reaches it, such as "func.net.nfe"."""
        return self.store.form.format(self.key)


class CallCounters:
    """The numbers that each call of func raises by a constant, among its attributes and in what else it can assign.

    A trace would be specialised to their values. So it sees each at zero, and the calls are added here. Create this
    object before the first call of func, and call `learn` after it.

    option: that for which they are kept, for error messages. more: other stores than func's object and its modules. If
    it is given, nothing else in the stores may change.
    """

    def __init__(
        self,
        func: Any,
        modules: Sequence[nn.Module],
        option: str = "compile=True",
        more: Sequence[Store] | None = None,
    ):
        self._option, self._name = option, option.partition("=")[0]
        self._strict = more is not None
        self.found: tuple[Counter, ...] = ()
        own = _attributes(func, modules)
        seen = {id(x.holder) for x in own}
        others = [x for x in more or () if not (isinstance(x, Attributes) and id(x.holder) in seen)]
        self._stores: list[Store] = [*own, *others]
        self._before: list[dict[Any, Any]] | None = [store.read() for store in self._stores]

    def learn(self) -> None:
        """Find the counters: the numbers that the first call changed. Later calls of this method do nothing."""
        if self._before is None:
            return
        found = []
        for store, before in zip(self._stores, self._before, strict=True):
            for key, value in store.read().items():
                if not _is_number(value) or isinstance(key, type(len)):
                    continue
                old = before.get(key, store.default(key))
                if _is_number(old) and value != old:
                    found.append(Counter(store, key, value - old))
        self.found, self._before = tuple(found), None

    def add(self, calls: int) -> None:
        """Count calls of func that were made without its code."""
        for x in self.found:
            x.store.put(x.key, x.store.get(x.key) + calls * x.step)

    @contextmanager
    def at(self, value: int) -> Iterator[None]:
        """Set every counter to a value, and restore it at the end."""
        now = [x.store.get(x.key) for x in self.found]
        for x in self.found:
            x.store.put(x.key, type(x.step)(value))
        try:
            yield
        finally:
            for x, count in zip(self.found, now, strict=True):
                x.store.put(x.key, count)

    @contextmanager
    def traced(self, calls: int) -> Iterator[None]:
        """Show a trace every counter at zero; then count its calls of func.

        Raises UnsupportedCombination, which names the value, if func set another one or counts in another way.
        """
        stores = self._stores if self.found or self._strict else []
        with self.at(0):
            held = [store.read() for store in stores]
            yield
            for x in self.found:
                if x.store.get(x.key) != calls * x.step:
                    raise UnsupportedCombination(
                        f"{self._option}: func does not raise {x.path} by the same number in every call, and "
                        f"{self._name}d code would not change it: leave {self._name} out"
                    )
            counters = {(id(x.store), x.key) for x in self.found}
            for store, key in changes(held, stores, same_value):
                if (id(store), key) not in counters:
                    path = "entries" if isinstance(key, type(len)) else store.form.format(key)
                    raise UnsupportedCombination(
                        f"{self._option}: func sets {path}, which {self._name}d code would not do: leave {self._name} "
                        "out, or return the value instead"
                    )
        self.add(calls)


def _attributes(func: Any, modules: Sequence[nn.Module]) -> list[Attributes]:
    """Return the attributes of the modules, and of the object that func is or whose method it is, each once."""
    while isinstance(func, partial):
        func = func.func
    owner = getattr(func, "__self__", func)
    owners = {id(owner): ("func", owner)} if own_attributes(owner) is not None else {}
    for module in modules:
        if id(module) in owners and module is not owner:  # found with the one that holds it
            continue
        root = "func" if module is owner else type(module).__name__
        for name, x in module.named_modules():
            owners.setdefault(id(x), (f"{root}.{name}" if name else root, x))
    return [Attributes(path, x) for path, x in owners.values()]


def _is_number(x: Any) -> bool:
    return is_kind(x, (int, float)) and not is_kind(x, bool)
