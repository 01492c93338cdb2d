"""Structured states: nested tuples, lists and dicts, packed into one tensor for the solver."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.finite import multi_index
from symplectic_adjoint.field.resolution import Resolution, can_cast, resolution_of
from symplectic_adjoint.field.subclasses import Subclass, plain

HALF_DTYPES = (torch.float16, torch.bfloat16)


def parts_of(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested tuples, lists and dicts with its path, such as "['z'][0]"."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from parts_of(branch, f"{path}[{key!r}]")
    elif isinstance(tree, tuple | list):
        for i, branch in enumerate(tree):
            yield from parts_of(branch, f"{path}[{i}]")
    else:
        yield path, tree


def _rebuild(tree: Any, leaves: Iterator[Any]) -> Any:
    """Return a structure like tree with other leaves, taken in order."""
    if isinstance(tree, dict):
        return {key: _rebuild(branch, leaves) for key, branch in tree.items()}
    if isinstance(tree, tuple | list):
        branches = [_rebuild(branch, leaves) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return next(leaves)


def _leaves_like(tree: Any, given: Any, path: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of given, with their paths, in tree's order.

    Tuples and lists are interchangeable. Raises TypeError, which gives `name`, if the structures differ.
    """
    if isinstance(tree, dict):
        if not isinstance(given, dict) or set(given) != set(tree):
            got = f"keys {sorted(map(str, given))}" if isinstance(given, dict) else type(given).__name__
            raise TypeError(f"{name}{path} must be a dict with the keys {sorted(map(str, tree))} of y0, got {got}")
        for key, branch in tree.items():
            yield from _leaves_like(branch, given[key], f"{path}[{key!r}]", name)
    elif isinstance(tree, tuple | list):
        if not isinstance(given, tuple | list) or len(given) != len(tree):
            got = f"{len(given)} parts" if isinstance(given, tuple | list) else type(given).__name__
            raise TypeError(f"{name}{path} must be a tuple or list of {len(tree)} parts like y0, got {got}")
        for i, branch in enumerate(tree):
            yield from _leaves_like(branch, given[i], f"{path}[{i}]", name)
    else:
        yield path, given


@dataclass(frozen=True)
class Part:
    """One tensor of a state: its path in the structure ("" for a state that is one tensor), shape, dtype and class."""

    path: str
    shape: torch.Size
    dtype: torch.dtype
    subclass: Subclass | None = None

    def cast(self, x: Tensor) -> Tensor:
        """Return a plain tensor in the part's dtype."""
        return x.to(self.dtype)

    def as_given(self, x: Tensor) -> Tensor:
        """Return a plain tensor as func is passed it."""
        x = x.to(self.dtype)
        return x if self.subclass is None else self.subclass.applied(x)


class Layout:
    """How the parts of a state are packed into the one tensor that is solved for.

    The parts of a structure are flattened and concatenated; a single tensor keeps its shape. Half precision is carried
    in float32, so that the sums of a step are no less accurate than func; parts of several dtypes are carried in the
    one they promote to. func and the caller see every part as it was given, but only func that of a Tensor's subclass.
    """

    def __init__(self, y0: Any):
        named = list(parts_of(y0))
        self._tree = y0 if not isinstance(y0, Tensor) else None
        self.parts = [Part(path, part.shape, part.dtype, Subclass.of(part)) for path, part in named]
        own = reduce(torch.promote_types, (part.dtype for part in self.parts))
        self.dtype = torch.float32 if own in HALF_DTYPES else own
        self.time_dtype = own.to_real()
        """The dtype in which func is passed t."""
        self._sizes = [part.shape.numel() for part in self.parts]

    @property
    def is_identity(self) -> bool:
        """Whether packing changes nothing: the state is one tensor, not of half precision nor of a subclass."""
        part = self.parts[0]
        return self._tree is None and part.dtype == self.dtype and part.subclass is None

    def pack(self, state: Any) -> Tensor:
        """Return the state as one tensor of dtype self.dtype, differentiable in its parts.

        The structure must be y0's. Shape: y0's own for a single tensor, else (total number of elements,).
        """
        return self._join([plain(leaf) for _, leaf in parts_of(state)])

    def slope_parts(self, slope: Any) -> list[Tensor]:
        """Return the parts of func's output, which may have any precision.

        Raises TypeError or ValueError, with the path, if a part is not like the state's.
        """
        leaves = list(_leaves_like(self._tree, slope, "", "func's output"))
        for part, (_, leaf) in zip(self.parts, leaves, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"func's output{part.path} must be a tensor, got {type(leaf).__name__}")
            if leaf.shape != part.shape or not can_cast(leaf.dtype, part.dtype):
                raise ValueError(
                    f"func must return a tensor like y{part.path} (shape {tuple(part.shape)}, {part.dtype}), "
                    f"got shape {tuple(leaf.shape)}, {leaf.dtype}: only its precision may differ"
                )
        return [leaf for _, leaf in leaves]

    def pack_slope(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the parts of func's output as one tensor, packed like the state."""
        return self._join(parts)

    def resolution(self, dtypes: Sequence[torch.dtype], device: torch.device) -> Resolution | None:
        """Return the resolution of func's output from the dtypes of its parts; None if it is that of the state."""
        return resolution_of(dtypes, self._sizes, self.dtype, device)

    def pack_tolerance(self, name: str, tolerance: Any, like: Tensor) -> Tensor:
        """Return a tolerance for every component, from a number or a tensor, possibly flattened, for each part of y0.

        Raises TypeError or ValueError, with the path, if the tolerance has a different structure from y0 or a part of
        it does not broadcast.
        """
        rows = []
        for part, (path, value) in zip(self.parts, _leaves_like(self._tree, tolerance, "", name), strict=True):
            row = torch.as_tensor(value, dtype=like.dtype.to_real(), device=like.device)
            if row.ndim == 1 and self._tree is not None and len(row) == part.shape.numel():  # as torchdiffeq takes them
                row = row.reshape(part.shape)
            try:
                rows.append(row.expand(part.shape))
            except RuntimeError:
                raise ValueError(
                    f"{name}{path} has shape {tuple(row.shape)}, which does not broadcast to y0's {tuple(part.shape)}"
                ) from None
        return rows[0] if self._tree is None else torch.cat([row.reshape(-1) for row in rows])

    def unpack(self, flat: Tensor) -> Any:
        """Return a packed state in its own structure, dtypes and classes."""
        return self._split(flat, Part.as_given)

    def unpack_plain(self, flat: Tensor) -> Any:
        """Return a packed state in its own structure and dtypes, of plain tensors."""
        return self._split(flat, Part.cast)

    def unpack_outputs(self, ys: Tensor) -> Any:
        """Return outputs (time first, then a packed state) in the state's structure and dtypes.

        Each part is a view of its own, which the caller may change in place: autograd forbids that for pieces of a
        split.
        """
        if self._tree is None:
            return ys.to(self.parts[0].dtype)
        starts = accumulate(self._sizes[:-1], initial=0)
        pieces = [ys.narrow(-1, start, size) for start, size in zip(starts, self._sizes, strict=True)]
        return self._rebuilt(pieces, (len(ys),), Part.cast)

    def unpack_errors(self, flat: Tensor) -> Any:
        """Return a packed state in its own structure, but in the precision of the solve."""
        return self._split(flat, lambda part, x: x)

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a packed state that are not empty, flattened."""
        return [x for x in flat.reshape(-1).split(self._sizes) if x.numel()]

    def norm(self, flat: Tensor) -> Tensor:
        """Return the largest of the parts' root mean squares, which is torchdiffeq's norm of a tuple."""
        pieces = self.pieces(flat)
        norms = [torch.linalg.vector_norm(x) / x.numel() ** 0.5 for x in pieces]
        return torch.stack(norms).amax() if norms else flat.new_zeros((), dtype=flat.dtype.to_real())

    @property
    def structured(self) -> bool:
        """Whether the state is a structure, not one tensor."""
        return self._tree is not None

    def place(self, index: int) -> Place:
        """Return the part and the component of an element of the packed tensor. Raises IndexError beyond its end."""
        for part, size in zip(self.parts, self._sizes, strict=True):
            if index < size:
                return Place(part.path or None, multi_index(index, part.shape))
            index -= size
        raise IndexError(index)

    def _join(self, leaves: Sequence[Tensor]) -> Tensor:
        if self._tree is None:
            return leaves[0].to(self.dtype)
        return torch.cat([leaf.reshape(-1).to(self.dtype) for leaf in leaves])

    def _split(self, flat: Tensor, finish: Callable[[Part, Tensor], Tensor]) -> Any:
        if self._tree is None:
            return finish(self.parts[0], flat)
        return self._rebuilt(flat.split(self._sizes), (), finish)

    def _rebuilt(
        self, pieces: Sequence[Tensor], lead: tuple[int, ...], finish: Callable[[Part, Tensor], Tensor]
    ) -> Any:
        """Return the structure of the flattened parts, each finished by a function of it."""
        named = zip(self.parts, pieces, strict=True)
        return _rebuild(self._tree, (finish(part, x.reshape((*lead, *part.shape))) for part, x in named))


class PackedFunc:
    """A func of a structured state as a function of the packed one. resolution: that of its last value."""

    def __init__(self, func: Callable[..., Any], layout: Layout):
        self._func, self._layout = func, layout
        self._resolutions: dict[tuple[torch.dtype, ...], Resolution | None] = {}
        self.resolution: Resolution | None = None

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        parts = self._layout.slope_parts(self._func(t, self._layout.unpack(y)))
        dtypes = tuple(part.dtype for part in parts)
        if dtypes not in self._resolutions:
            self._resolutions[dtypes] = self._layout.resolution(dtypes, y.device)
        self.resolution = self._resolutions[dtypes]
        return self._layout.pack_slope(parts)
