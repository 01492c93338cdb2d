"""Tensors of subclasses, which libraries hang their metadata on: the solver works on the plain tensors beneath."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

_FLAGS = ("_is_param", "_is_buffer", "persistent")
"""The attributes that torch itself hangs on a tensor."""

_DISPATCH = "__torch_dispatch__"


@dataclass(frozen=True)
class Subclass:
    """A subclass of Tensor that holds its values itself, and the attributes of a state of that class."""

    kind: type[Tensor]
    attributes: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, x: Tensor) -> "Subclass | None":
        """Return that of a tensor; None for a plain one, and for one that wraps others."""
        if not _is_subclassed(x):
            return None
        return cls(type(x), {name: value for name, value in vars(x).items() if name not in _FLAGS})

    def applied(self, x: Tensor) -> Tensor:
        """Return a plain tensor as one of this class."""
        x = x.as_subclass(self.kind)
        vars(x).update(self.attributes)
        return x


def plain(x: Any) -> Any:
    """Return the tensor beneath one of a subclass, on the graph; anything else itself."""
    return x.as_subclass(Tensor) if isinstance(x, Tensor) and _is_subclassed(x) else x


def _is_subclassed(x: Tensor) -> bool:
    kind = type(x)
    if kind is Tensor or kind is nn.Parameter:
        return False
    return getattr(kind, _DISPATCH) is getattr(Tensor, _DISPATCH)  # otherwise it may wrap others
