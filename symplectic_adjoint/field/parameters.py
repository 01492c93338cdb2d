"""The tensors that func is known to use, and the modules that hold them."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.graph import walk_edges
from symplectic_adjoint.field.module_lock import lock_of


@dataclass(frozen=True)
class Parameters:
    """The tensors that func is known to use: trainable ones, which get a gradient, and frozen ones."""

    trainable: tuple[Tensor, ...]
    frozen: tuple[Tensor, ...]
    modules: tuple[nn.Module, ...]
    """The module that func is, or whose method it is, with its submodules."""
    named_modules: tuple[nn.Module, ...] = ()
    """The modules that a plain function refers to by name, with their submodules: params may be theirs."""

    @property
    def all_modules(self) -> tuple[nn.Module, ...]:
        """All modules that func is known to call."""
        return self.modules + self.named_modules


Params = Iterable[Tensor] | nn.Module
"""What `params` may be; a module stands for its parameters."""


def collect_parameters(func: Callable[..., Any], params: Params | None) -> Parameters:
    """Return the tensors of `params`, then the parameters of func's module, each once.

    func may be a module, a bound method of one, a functools.partial of these, or any function (which has none). Raises
    TypeError if params is neither tensors nor a module, ValueError if a parameter is computed from another one, and
    UnsupportedCombination if parameters of func are sharded.
    """
    given = listed("params", params)
    modules, named_modules = modules_of(func)
    own = [p for m in modules for p in _own_parameters(m)]
    _refuse_sharded(own)
    found: dict[int, Tensor] = {}
    for index, p in enumerate((*given, *own)):
        if not isinstance(p, Tensor):
            raise TypeError(f"params[{index}] must be a tensor, got {type(p).__name__}")
        found.setdefault(id(p), p)
    trainable = tuple(p for p in found.values() if p.requires_grad)
    _refuse_unsavable(trainable)
    _refuse_ancestors(trainable)
    frozen = tuple(p for p in found.values() if not p.requires_grad and not p.is_inference())
    return Parameters(trainable, frozen, modules, named_modules)


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


def modules_of(func: Callable[..., Any]) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
    """Return two groups of modules with their submodules, of which at least one is empty.

    The first starts with the module that func is or whose method it is; the second has the modules that a plain
    function refers to by name.
    """
    inner: Any = func
    while isinstance(inner, partial):
        inner = inner.func
    owner = inner if isinstance(inner, nn.Module) else getattr(inner, "__self__", None)
    if isinstance(owner, nn.Module):
        return tuple(owner.modules()), ()
    return (), _modules_named_by(inner)


def has_lazy_parameters(func: Callable[..., Any], params: Params | None) -> bool:
    """Return whether func's first call will give parameters or buffers their shapes (LazyLinear)."""
    modules = sum(modules_of(func), ())
    lazy = any(isinstance(m, LazyModuleMixin) and cast(Any, m).has_uninitialized_params() for m in modules)
    return lazy or any(map(is_lazy, listed("params", params)))


def lock_of_func(func: Callable[..., Any]) -> AbstractContextManager[Any]:
    """Return the lock of the modules that func calls, to be held while their parameters are collected."""
    return lock_of(sum(modules_of(func), ()))


def _modules_named_by(func: Any) -> tuple[nn.Module, ...]:
    """Return the modules among the closure variables and globals that a Python function refers to."""
    code = getattr(func, "__code__", None)
    if code is None:
        return ()
    named = [func.__globals__.get(name) for name in code.co_names]
    for cell in func.__closure__ or ():
        with suppress(ValueError):  # the variable has no value yet
            named.append(cell.cell_contents)
    return tuple(module for x in named if isinstance(x, nn.Module) for module in x.modules())


def _own_parameters(module: nn.Module) -> list[Tensor]:
    """Return the module's own parameters; a DataParallel replica's are plain attributes, copies on its device."""
    if "_is_replica" not in vars(module):
        return [p for p in module._parameters.values() if p is not None]
    return [x for x in vars(module).values() if isinstance(x, Tensor) and x.requires_grad]


def _refuse_sharded(params: Sequence[Tensor]) -> None:
    """Raise UnsupportedCombination for DTensors: while func runs, FSDP2 replaces them by tensors unknown until then."""
    sharding = sys.modules.get("torch.distributed.tensor")
    if sharding is not None and any(isinstance(p, sharding.DTensor) for p in params):
        raise UnsupportedCombination(
            "func's parameters are sharded (DTensor, as FSDP2 leaves them), and each f call would gather them again: "
            "wrap the model in DistributedDataParallel, or shard the layers around the solve only"
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


def _refuse_ancestors(params: tuple[Tensor, ...]) -> None:
    """Raise ValueError if a parameter is computed from another one, to which its gradient would also flow."""
    leaves = {id(q): q for q in params if q.grad_fn is None}
    others = {(q.grad_fn, q.output_nr): q for q in params if q.grad_fn is not None}
    for p in others.values():
        for node, output_nr in walk_edges([(p.grad_fn, p.output_nr)], set()):
            q = leaves.get(id(getattr(node, "variable", None)), others.get((node, output_nr)))
            if q is not None and q is not p:
                raise ValueError(
                    f"a tensor of shape {tuple(p.shape)} in params is computed from another parameter, of shape "
                    f"{tuple(q.shape)}, which would get its gradient twice: pass one of the two, or compute the first "
                    "one inside func"
                )
