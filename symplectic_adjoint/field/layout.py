"""Structured states: tuples, lists, dicts and mixtures of them, laid out as one tensor for the solver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.finite import unravelled

HALVES = (torch.float16, torch.bfloat16)


def parts_of(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nest of tuples, lists and dicts, with its path: "['z'][0]"."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from parts_of(branch, f"{path}[{key!r}]")
    elif isinstance(tree, tuple | list):
        for i, branch in enumerate(tree):
            yield from parts_of(branch, f"{path}[{i}]")
    else:
        yield path, tree


def _rebuilt(tree: Any, leaves: Iterator[Any]) -> Any:
    """A nest like tree with other leaves, taken in order."""
    if isinstance(tree, dict):
        return {key: _rebuilt(branch, leaves) for key, branch in tree.items()}
    if isinstance(tree, tuple | list):
        branches = [_rebuilt(branch, leaves) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(leaves)


def _leaves_like(tree: Any, given: Any, path: str, what: str) -> Iterator[tuple[str, Any]]:
    """given's leaves in tree's order. Tuples and lists stand for each other. Raises TypeError or ValueError."""
    if isinstance(tree, dict):
        if not isinstance(given, dict) or set(given) != set(tree):
            got = f"keys {sorted(map(str, given))}" if isinstance(given, dict) else type(given).__name__
            raise TypeError(f"{what}{path} must be a dict with the keys {sorted(map(str, tree))} of y0, got {got}")
        for key, branch in tree.items():
            yield from _leaves_like(branch, given[key], f"{path}[{key!r}]", what)
    elif isinstance(tree, tuple | list):
        if not isinstance(given, tuple | list) or len(given) != len(tree):
            got = f"{len(given)} parts" if isinstance(given, tuple | list) else type(given).__name__
            raise TypeError(f"{what}{path} must be a tuple or list of {len(tree)} parts like y0, got {got}")
        for i, branch in enumerate(tree):
            yield from _leaves_like(branch, given[i], f"{path}[{i}]", what)
    else:
        yield path, given


@dataclass(frozen=True)
class Part:
    path: str
    shape: torch.Size
    dtype: torch.dtype


class Layout:
    """Where each part of a state lies in the tensor that is solved for.

    A state of several parts is concatenated flat; a single tensor keeps its shape. Half precision is
    carried in float32, for the sums of a step to be no rougher than func is; parts of several dtypes in the
    one that holds them all. func and the caller see every part as it was given.
    """

    def __init__(self, y0: Any):
        named = list(parts_of(y0))
        self._tree = y0 if not isinstance(y0, Tensor) else None
        self.parts = [Part(path, part.shape, part.dtype) for path, part in named]
        own = reduce(torch.promote_types, (part.dtype for part in self.parts))
        self.dtype = torch.float32 if own in HALVES else own
        self.time_dtype = own.to_real()
        """That of t as func gets it."""
        self._sizes = [part.shape.numel() for part in self.parts]

    @property
    def trivial(self) -> bool:
        """Whether packing changes nothing."""
        return self._tree is None and self.parts[0].dtype == self.dtype

    def pack(self, state: Any) -> Tensor:
        """One tensor of dtype self.dtype, differentiable in the parts. The state has been checked to fit."""
        return self._joined([leaf for _, leaf in parts_of(state)])

    def pack_slope(self, slope: Any) -> Tensor:
        """What func returned, as one tensor. Raises where it is not like the state, part by part."""
        leaves = list(_leaves_like(self._tree, slope, "", "func's output"))
        for part, (_, leaf) in zip(self.parts, leaves, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"func's output{part.path} must be a tensor, got {type(leaf).__name__}")
            if leaf.shape != part.shape or leaf.dtype != part.dtype:
                raise ValueError(
                    f"func must return a tensor like y{part.path} (shape {tuple(part.shape)}, {part.dtype}), "
                    f"got shape {tuple(leaf.shape)}, {leaf.dtype}: it is not broadcast or cast for you"
                )
        return self._joined([leaf for _, leaf in leaves])

    def pack_tolerance(self, name: str, tolerance: Any, like: Tensor) -> Tensor:
        """A tolerance a component, from a number or tensor for each part of y0. Raises where they do not fit."""
        rows = []
        for part, (path, value) in zip(self.parts, _leaves_like(self._tree, tolerance, "", name), strict=True):
            row = torch.as_tensor(value, dtype=like.dtype.to_real(), device=like.device)
            try:
                rows.append(row.expand(part.shape))
            except RuntimeError:
                raise ValueError(
                    f"{name}{path} has shape {tuple(row.shape)}, which does not broadcast to y0's {tuple(part.shape)}"
                ) from None
        return rows[0] if self._tree is None else torch.cat([row.reshape(-1) for row in rows])

    def unpack(self, flat: Tensor) -> Any:
        """The state in its own structure and dtypes."""
        return self._split(flat, (), cast=True)

    def unpack_outputs(self, ys: Tensor) -> Any:
        """Outputs (time first) in the state's structure."""
        return self._split(ys, (len(ys),), cast=True)

    def unpack_errors(self, flat: Tensor) -> Any:
        """Like unpack, in the precision of the solve."""
        return self._split(flat, (), cast=False)

    def norm(self, flat: Tensor) -> Tensor:
        """The largest of the parts' root mean squares: torchdiffeq's norm of a tuple."""
        pieces = [x for x in flat.split(self._sizes) if x.numel()]
        norms = [torch.linalg.vector_norm(x) / x.numel() ** 0.5 for x in pieces]
        return torch.stack(norms).amax() if norms else flat.new_zeros((), dtype=flat.dtype.to_real())

    @property
    def structured(self) -> bool:
        return self._tree is not None

    def place(self, index: int) -> Place:
        """The part and the component of a number in the packed tensor."""
        for part, size in zip(self.parts, self._sizes, strict=True):
            if index < size:
                return Place(part.path or None, unravelled(index, part.shape))
            index -= size
        raise IndexError(index)

    def _joined(self, leaves: Sequence[Tensor]) -> Tensor:
        if self._tree is None:
            return leaves[0].to(self.dtype)
        return torch.cat([leaf.reshape(-1).to(self.dtype) for leaf in leaves])

    def _split(self, flat: Tensor, lead: tuple[int, ...], *, cast: bool) -> Any:
        if self._tree is None:
            return flat.to(self.parts[0].dtype) if cast else flat
        pieces = zip(self.parts, flat.split(self._sizes, dim=-1), strict=True)
        leaves = (x.reshape((*lead, *part.shape)).to(part.dtype if cast else x.dtype) for part, x in pieces)
        return _rebuilt(self._tree, leaves)


class PackedFunc:
    """func of a structured state, as a function of the packed one."""

    def __init__(self, func: Callable[..., Any], layout: Layout):
        self._func, self._layout = func, layout

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        return self._layout.pack_slope(self._func(t, self._layout.unpack(y)))
