"""What modules hold besides tensors: numbers, flags, references, submodules."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint.field.module_tensors import STANDARD_ATTRIBUTES

_MISSING: Any = object()

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS_OF_HOOKS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")


class ModuleValues:
    """The values of the modules' attributes, the submodules and the hooks that they hold, when this object was made."""

    def __init__(self, modules: Sequence[nn.Module]):
        self._held: list[tuple[dict[str, Any], str, Any]] = []
        for m in modules:
            own = vars(m)
            self._held += [(own, key, x) for key, x in own.items() if _is_value(key, x)]
            self._held += [(own, key, _MISSING) for key in _class_values(type(m)) if key not in own]
            if m._modules and isinstance(m._modules, dict):  # a ScriptModule has no dict, and keeps its submodules
                self._held += [(m._modules, key, x) for key, x in m._modules.items()]
        self._hooks = [(vars(m), key, dict(held)) for m in modules for key, held in _hooks_in(m)]

    def forget_changed(self) -> None:
        """Forget the values that have changed: func itself changed them, to count its calls for example."""
        self._held = [(own, key, x) for own, key, x in self._held if own.get(key, _MISSING) is x]
        self._hooks = [(own, key, x) for own, key, x in self._hooks if own[key] == x]

    @property
    def unchanged(self) -> bool:
        """Whether each value is still in its place."""
        held = all([own.get(key, _MISSING) is x for own, key, x in self._held])  # a list is faster than a generator
        return held and all([own[key] == x for own, key, x in self._hooks])

    @contextmanager
    def reinstated(self) -> Iterator[None]:
        """Put the values back, and at the end the newer ones again."""
        newer = [(own, key, x, now) for own, key, x in self._held if (now := own.get(key, _MISSING)) is not x]
        newer += [(own, key, OrderedDict(x), now) for own, key, x in self._hooks if (now := own[key]) != x]
        for own, key, x, _ in newer:
            _put(own, key, x)
        try:
            yield
        finally:
            for own, key, _, now in newer:
                _put(own, key, now)


def hooks_of(module: nn.Module) -> list[Any]:
    """Return the hooks that a module calls before and after its forward method."""
    return [x for key in _HOOKS for x in (vars(module).get(key) or {}).values()]


def _hooks_in(module: nn.Module) -> list[tuple[str, dict[int, Any]]]:
    """Return a module's hooks and their flags, each under the attribute that holds them."""
    own = vars(module)
    return [(key, own[key]) for key in (*_HOOKS, *_FLAGS_OF_HOOKS) if key in own]


def _is_value(key: str, x: Any) -> bool:
    return key not in STANDARD_ATTRIBUTES and not isinstance(x, Tensor)


def _class_values(kind: type) -> list[str]:
    """Return the names of the values that a module's class holds, which an attribute set later would hide."""
    bases = [base for base in kind.__mro__ if not base.__module__.startswith("torch.") and base is not object]
    return [
        key
        for base in bases
        for key, x in vars(base).items()
        if not (key.startswith("__") or callable(x) or hasattr(x, "__get__"))
    ]


def _put(own: dict[str, Any], key: str, x: Any) -> None:
    if x is _MISSING:
        own.pop(key, None)
    else:
        own[key] = x
