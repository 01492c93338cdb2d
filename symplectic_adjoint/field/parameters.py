"""The tensors that func is known to use, and the modules that hold them."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.held_values import is_kind
from symplectic_adjoint.field.module_lock import lock_of
from symplectic_adjoint.field.parameter_aliases import original
from symplectic_adjoint.field.reach import Reach


@dataclass(frozen=True)
class Parameters:
    """The tensors that func is known to use: trainable ones, which get a gradient, and frozen ones."""

    trainable: tuple[Tensor, ...]
    frozen: tuple[Tensor, ...]
    modules: tuple[nn.Module, ...]
    """The module that func is, or whose method it is, with its submodules."""

    @property
    def all_tensors(self) -> tuple[Tensor, ...]:
        """All tensors that func is known to use."""
        return self.trainable + self.frozen


Params = Iterable[Tensor] | nn.Module
"""What `params` may be; a module stands for its parameters."""


def collect_parameters(func: Callable[..., Any], reach: Reach, params: Params | None) -> Parameters:
    """Return the tensors of `params`, the parameters of func's module, and those in its variables, each once.

    func may be a module, a bound method of one, a functools.partial of these, or any function; reach is what it
    reaches. Raises TypeError if params is neither tensors nor a module, and UnsupportedCombination if parameters of
    func are sharded.
    """
    given = listed("params", params)
    modules = own_modules(func)
    own = [*(p for m in modules for p in _own_parameters(m)), *reach.variables()]
    _refuse_sharded(own, reach.modules)
    for index, p in enumerate(given):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got {type(p).__name__}")
    found = _each_once(map(original, _each_once((*given, *own))))
    trainable = tuple(p for p in found if p.requires_grad)
    _refuse_unsavable(trainable)
    frozen = tuple(p for p in found if not p.requires_grad and not p.is_inference())
    return Parameters(trainable, frozen, modules)


def listed(name: str, params: Params | None) -> tuple[Tensor, ...]:
    """Return the tensors of an argument such as params, which may be any iterable of them, or a module."""
    if params is None:
        return ()
    if isinstance(params, Tensor):
        raise TypeError(f"{name} must be a sequence of tensors, got one tensor: write {name}=(tensor,)")
    if isinstance(params, nn.Module):
        with lock_of(tuple(params.modules())):
            return tuple(p for m in params.modules() for p in _own_parameters(m))
    if not isinstance(params, Iterable):
        raise TypeError(f"{name} must be a sequence of tensors or a module, got {type(params).__name__}")
    return tuple(params)


def own_modules(func: Callable[..., Any]) -> tuple[nn.Module, ...]:
    """Return the module that func is, or whose method it is, with its submodules; none for other functions."""
    inner: Any = func
    while isinstance(inner, partial):
        inner = inner.func
    owner = inner if isinstance(inner, nn.Module) else getattr(inner, "__self__", None)
    return tuple(owner.modules()) if isinstance(owner, nn.Module) else ()


def has_lazy_parameters(reach: Reach, params: Params | None) -> bool:
    """Return whether func's first call will give parameters or buffers their shapes (LazyLinear)."""
    lazy = (isinstance(m, LazyModuleMixin) and cast(Any, m).has_uninitialized_params() for m in reach.modules)
    return any(lazy) or any(map(is_lazy, listed("params", params)))


def _each_once(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(p): p for p in tensors}.values())


def _own_parameters(module: nn.Module) -> list[Tensor]:
    """Return the module's own parameters; a DataParallel replica's are plain attributes, copies on its device."""
    if "_is_replica" not in vars(module):
        return [p for p in module._parameters.values() if p is not None]
    return [x for x in vars(module).values() if is_kind(x, Tensor) and x.requires_grad]


def _refuse_sharded(params: Sequence[Tensor], modules: Sequence[nn.Module]) -> None:
    """Raise UnsupportedCombination for FSDP: while func runs, it replaces parameters by tensors unknown until then."""
    tensor, fsdp = sys.modules.get("torch.distributed.tensor"), sys.modules.get("torch.distributed.fsdp")
    found = None
    if tensor is not None and any(isinstance(p, tensor.DTensor) for p in params):
        found = "DTensor, as FSDP2 leaves them"
    elif fsdp is not None and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in modules):
        found = "FullyShardedDataParallel, FSDP1"
    if found:
        raise UnsupportedCombination(
            f"func's parameters are sharded ({found}), and each f call would gather them again: wrap the model in "
            "DistributedDataParallel, or shard the layers around the solve only"
        )


def _refuse_unsavable(params: Sequence[Tensor]) -> None:
    """Raise UnsupportedCombination for a parameter made in inference mode if a gradient may be wanted."""
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return
    for p in params:
        if p.is_inference():
            raise UnsupportedCombination(
                f"a parameter of shape {tuple(p.shape)} was made in inference mode, so autograd cannot save it: make "
                "the model outside torch.inference_mode(), or solve under torch.no_grad()"
            )
