"""The autocast of a card, pretended on the CPU, whose own casts other operators."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

import symplectic_adjoint

LIBRARY = Path(symplectic_adjoint.__file__).parent

WIDENED = {"addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sampler", "index_put", "scatter_add"}
"""Operators whose tensors are all cast to the widest dtype among them."""
WIDENED |= {"tensordot", "vdot"}

WHOLE = {"cumprod", "cumsum", "exp", "linalg_vector_norm", "log", "norm", "pow", "prod", "reciprocal", "rsqrt", "sum"}
"""Operators whose tensors are cast to float32. There are more, but all others are taken for lowered ones."""


def cast_on_a_card() -> list[str]:
    """Return the names of the operators that a card's autocast casts."""
    names = torch._C._dispatch_get_all_op_names()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return sorted(x for x in names if x.startswith("aten::") and has_kernel(x, "AutocastCUDA"))


@contextmanager
def autocast_of_a_card() -> Iterator[list[str]]:
    """Let autocast cast on the CPU what it casts on a card. Yield its casts, by operator and place in the library."""
    casts: list[str] = []
    library = torch.library.Library("aten", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are cast on the CPU too
            for name in cast_on_a_card():
                library.impl(name.removeprefix("aten::"), _kernel(name, casts), "AutocastCPU")
        yield casts
    finally:
        library._destroy()


def _kernel(name, casts):
    packet, _, overload = name.removeprefix("aten::").partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def kernel(*args, **kwargs):
        to = torch.float32 if packet in WHOLE else torch.get_autocast_dtype("cpu")
        eligible = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and _is_eligible(x)]
        if packet in WIDENED:
            to = torch.float32 if len({x.dtype for x in eligible}) > 1 else None
        if to is not None and any(x.dtype != to for x in eligible):
            casts.append(f"{name} at {_place()}")
            args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to(to) if _is_eligible(x) else x, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return operator(*args, **kwargs)

    return kernel


def _is_eligible(x):
    return x.is_floating_point() and x.dtype != torch.float64


def _place():
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(LIBRARY) and path.name != "capturable.py":  # whose mode sees every operator
            return f"{path.relative_to(LIBRARY).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back
    return "caller"
