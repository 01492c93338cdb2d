"""What modules hold besides tensors: numbers, flags, references, submodules."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from symplectic_adjoint.field.held_values import is_kind
from symplectic_adjoint.field.module_tensors import Attribute

_MISSING: Any = object()

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS_OF_HOOKS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
_HOOKS_AND_FLAGS = _HOOKS + _FLAGS_OF_HOOKS


class ModuleValues:
    """The values of the modules' attributes, the submodules and the hooks that they hold, when this object was made."""

    def __init__(self, modules: Sequence[nn.Module], attributes: Sequence[Attribute]):
        self._held = [one for one in attributes if not is_kind(one[2], Tensor)]
        for m in modules:
            own = vars(m)
            self._held += [(own, key, _MISSING) for key in _class_values(type(m)) if key not in own]
            if m._modules and isinstance(m._modules, dict):  # a ScriptModule has no dict, and keeps its submodules
                self._held += [(m._modules, key, x) for key, x in m._modules.items()]
        self._hooks = [
            (own, key, dict(own[key])) for own in map(vars, modules) for key in _HOOKS_AND_FLAGS if key in own
        ]

    @property
    def held(self) -> Sequence[Attribute]:
        """The values, each with the dict that holds it and its name there."""
        return self._held

    @property
    def hooks(self) -> Sequence[dict[Any, Any]]:
        """The hooks of the modules, and the flags of these."""
        return [x for _, _, x in self._hooks]

    def forget_changed(self) -> None:
        """Forget the values that have changed: func itself changed them, to count its calls for example."""
        self._held = [(own, key, x) for own, key, x in self._held if own.get(key, _MISSING) is x]
        self._hooks = [(own, key, x) for own, key, x in self._hooks if own[key] == x]

    def changed(self) -> list[tuple[Attribute, Any]]:
        """Return the values that are no longer in their places, each with the newer one there."""
        values = [((own, key, x), now) for own, key, x in self._held if (now := own.get(key, _MISSING)) is not x]
        hooks = [((own, key, OrderedDict(x)), now) for own, key, x in self._hooks if (now := own[key]) != x]
        return values + hooks


@contextmanager
def put_back(changed: Sequence[tuple[Attribute, Any]]) -> Iterator[None]:
    """Put values back, and at the end the newer ones again."""
    for (own, key, x), _ in changed:
        _put(own, key, x)
    try:
        yield
    finally:
        for (own, key, _), now in changed:
            _put(own, key, now)


def hooks_of(module: nn.Module) -> list[Any]:
    """Return the hooks that a module calls before and after its forward method."""
    own = vars(module)
    return [hook for key in _HOOKS if own.get(key) for hook in own[key].values()]


def _class_values(kind: type) -> list[str]:
    """Return the names of the values that a module's class holds, which an attribute set later would hide."""
    bases = [base for base in kind.__mro__ if not base.__module__.startswith("torch.") and base is not object]
    return [
        key
        for base in bases
        for key, x in vars(base).items()
        if not (key.startswith("__") or callable(x) or hasattr(type(x), "__get__"))
    ]


def _put(own: dict[str, Any], key: str, x: Any) -> None:
    if x is _MISSING:
        own.pop(key, None)
    else:
        own[key] = x
