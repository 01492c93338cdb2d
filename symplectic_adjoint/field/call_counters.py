"""Counters of calls that func keeps itself (self.nfe += 1), which compiled and captured code leaves to the library."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from symplectic_adjoint.errors import UnsupportedCombination

Number = int | float


@dataclass(frozen=True)
class Counter:
    """An attribute that every call of func raises by `step`. path: how func reaches it, such as "func.net.nfe"."""

    holder: dict[str, Any]
    name: str
    path: str
    step: Number


class CallCounters:
    """The numbers among the attributes of func and its modules that each call raises by a constant.

    option: that for which they are kept, for error messages.

    A trace would be specialised to their values. So it sees each at zero, and the calls are added here. Create this
    object before the first call of func, and call `learn` after it.
    """

    def __init__(self, func: Any, modules: Sequence[nn.Module], option: str = "compile=True"):
        self._option = option
        self._name = option.partition("=")[0]
        self.found: tuple[Counter, ...] = ()
        self._owners = _named_owners(func, modules)
        self._before: list[dict[str, Any]] | None = [dict(vars(owner)) for _, owner in self._owners]

    def learn(self) -> None:
        """Find the counters: the numbers that the first call changed. Later calls of this method do nothing."""
        if self._before is None:
            return
        found = []
        for (path, owner), before in zip(self._owners, self._before, strict=True):
            for name, value in vars(owner).items():
                old = before.get(name, getattr(type(owner), name, None))  # a count may start on the class
                if _is_number(value) and _is_number(old) and value != old:
                    found.append(Counter(vars(owner), name, f"{path}.{name}", value - old))
        self.found, self._before = tuple(found), None

    def add(self, calls: int) -> None:
        """Count calls of func that were made without its code."""
        for x in self.found:
            x.holder[x.name] += calls * x.step

    @contextmanager
    def at(self, value: int) -> Iterator[None]:
        """Set every counter to a value, and restore it at the end."""
        now = [x.holder[x.name] for x in self.found]
        for x in self.found:
            x.holder[x.name] = type(x.step)(value)
        try:
            yield
        finally:
            for x, count in zip(self.found, now, strict=True):
                x.holder[x.name] = count

    @contextmanager
    def traced(self, calls: int) -> Iterator[None]:
        """Show a trace every counter at zero; then count its calls of func.

        Raises UnsupportedCombination, which names the attribute, if func set another one or counts in another way.
        """
        held = [dict(vars(owner)) for _, owner in self._owners] if self.found else []
        with self.at(0):
            yield
            for x in self.found:
                if x.holder[x.name] != calls * x.step:
                    raise UnsupportedCombination(
                        f"{self._option}: func does not raise {x.path} by the same number in every call, and "
                        f"{self._name}d code would not change it: leave {self._name} out"
                    )
            counters = {(id(x.holder), x.name) for x in self.found}
            for (path, owner), before in zip(self._owners, held, strict=bool(held)):
                for name, value in vars(owner).items():
                    if value is not before.get(name, _MISSING) and (id(vars(owner)), name) not in counters:
                        raise UnsupportedCombination(
                            f"{self._option}: func sets {path}.{name}, which {self._name}d code would not do: leave "
                            f"{self._name} out, or return the value instead"
                        )
        self.add(calls)


_MISSING = object()


def _named_owners(func: Any, modules: Sequence[nn.Module]) -> list[tuple[str, Any]]:
    """Return the modules, and the object that func is or whose method it is, each once, with their paths."""
    while isinstance(func, partial):
        func = func.func
    owner = getattr(func, "__self__", func)
    owners = {id(owner): ("func", owner)} if hasattr(owner, "__dict__") else {}
    for module in modules:
        names = module.named_modules()
        root = "func" if module is owner else type(module).__name__
        for name, x in names:
            owners.setdefault(id(x), (f"{root}.{name}" if name else root, x))
    return list(owners.values())


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)
