"""What func reaches by name: modules, tensors, and values of the caller's own containers and objects."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from torch import Tensor, nn

from symplectic_adjoint.field.copied_variables import CopiedVariables
from symplectic_adjoint.field.module_tensors import ModuleTensor
from symplectic_adjoint.field.places import Place, TupleHolder
from symplectic_adjoint.field.stores import Store
from symplectic_adjoint.field.watched_values import WatchedValues

_OPAQUE_MODULES = ("OptimizedModule", "RecursiveScriptModule", "TopLevelTracedModule", "TracedModule", "ScriptModule")


@dataclass(frozen=True)
class ReachedTensor:
    """A tensor that func reaches by this name.

    place: where a copied function or a tuple holds it, so that a stand-in can be put there; None if nowhere. The tensor
    is not kept alive: it may be the output of an earlier solve, which an attribute happens to hold.
    """

    name: str
    reference: ref[Tensor]
    place: Place | None

    @property
    def tensor(self) -> Tensor | None:
        """The tensor; None if it is no longer alive."""
        return self.reference()


@dataclass(frozen=True)
class Reach:
    """What func reaches by name. func: the function to call, a copy if func is a plain function.

    roots: the modules that are reached by a name of their own. modules: those with all their submodules. tensors: those
    that are neither parameters nor buffers of a module.
    """

    func: Callable[..., Any]
    roots: tuple[tuple[str, nn.Module], ...] = ()
    modules: tuple[nn.Module, ...] = ()
    tensors: tuple[ReachedTensor, ...] = ()
    watched: tuple[WatchedValues, ...] = ()
    values: tuple[tuple[str, Any], ...] = ()
    """The numbers, strings and the like that variables of func hold, each with its name there."""
    stores: tuple[Store, ...] = ()
    """Where func can keep values, besides attributes of itself and of its modules."""
    names: frozenset[str] = frozenset()
    """The attributes that func, and the functions that it names, read."""
    computed_names: bool = False
    """Whether they also reach attributes by names that they compute."""
    copied: CopiedVariables = field(default_factory=CopiedVariables)
    """The variables of the functions that were copied."""

    @property
    def places(self) -> list[ModuleTensor]:
        """The places in copied functions and in tuples that hold a tensor."""
        found = [(*x.place, x.tensor) for x in self.tensors if x.place is not None]
        return [ModuleTensor(holder, key, tensor) for holder, key, tensor in found if tensor is not None]

    @property
    def opaque_modules(self) -> list[nn.Module]:
        """The compiled and scripted modules of func, whose operations torch does not show."""
        return [m for m in self.modules if type(m).__name__ in _OPAQUE_MODULES]

    def variables(self) -> list[Tensor]:
        """Return the tensors that func's variables hold and that require a gradient, and the parameters of its modules.

        Of a module of which func names submodules, only the parameters of those, and its own, unless it computes names.
        Frozen ones as well: they may be trained again before the backward pass.
        """
        own = [x.tensor for x in self.tensors if x.place is not None and not _is_attribute(x.place)]
        found = [x for x in own if x is not None and x.requires_grad]
        for _, root in self.roots:
            named = [child for key, child in root._modules.items() if child is not None and key in self.names]
            some = named and not self.computed_names
            modules = [root, *(m for child in named for m in child.modules())] if some else root.modules()
            found += [p for m in modules for p in m._parameters.values() if p is not None]
        return found

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors without a history that require a gradient, each of which func may use at some time."""
        held = [x.tensor for x in self.tensors]
        return [x for x in held if x is not None and x.requires_grad and x.is_leaf]

    def name_of(self, x: Tensor) -> str | None:
        """Return the expression by which func reaches a tensor; None if it was not found."""
        for reached in self.tensors:
            if reached.tensor is x:
                return reached.name
        for name, root in self.roots:
            for path, m in root.named_modules():
                for key, held in (*m._parameters.items(), *m._buffers.items()):
                    if held is x:
                        return ".".join(part for part in (name, path, key) if part)
        return None


def _is_attribute(place: Place) -> bool:
    """Return whether a place belongs to the caller, as an attribute of a module does."""
    holder = place[0]
    while isinstance(holder, TupleHolder):
        holder = holder.outer
    return isinstance(holder, dict) and "_modules" in holder
