"""Accumulation of dL/dtheta during the backward pass: one tensor per parameter, never one per stage."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint._torch_internals import foreach_add_, hooks_on_all_modules, run_backward
from symplectic_adjoint.backward.running_sum import running_sum
from symplectic_adjoint.field.compiled_graphs import refuse_compiled
from symplectic_adjoint.field.few_launches import launches_count
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.layout import HALF_DTYPES
from symplectic_adjoint.field.lost_gradients import refuse_bypass
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.program_sums import ProgramSums
from symplectic_adjoint.field.sparse import is_sparse, sparse_sum
from symplectic_adjoint.field.transforms import batched

Reached = Sequence[Tensor | GradientEdge]


class ParameterSums(Protocol):
    """Pulls cotangents back through graphs, and sums those of the parameters."""

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of inputs (leaves made for this call); add those of the parameters to the sums.

        by_params: as in Pull.
        """
        ...

    def total(self) -> list[Tensor | None]:
        """Return dL/dtheta, one entry per parameter, None if nothing was added to it."""
        ...

    @property
    def lam(self) -> Tensor | None:
        """The buffer in which transposed steps update lam themselves; None if they do not."""
        ...


SMALL_PARAMETERS = 2**20
"""Bytes of theta up to which a VJP's part of dL/dtheta may exist as a whole."""


def sums_together(device: torch.device, nbytes: int) -> bool:
    """Return whether a VJP's part of dL/dtheta, of so many bytes, is to be added in one kernel.

    FlopCounterMode needs autograd's own additions.
    """
    return launches_count(device) and nbytes <= SMALL_PARAMETERS and not hooks_on_all_modules


@contextmanager
def parameter_sums(f: Field, cotangent: Tensor, accumulate: str | None = None) -> Iterator[ParameterSums]:
    """Yield the sums of dL/dtheta for the calls of f in the block, with aliases for the parameters if possible.

    cotangent: a tensor like those that will be pulled back. accumulate: how to sum, as in odeint.
    """
    if f.captured is not None:
        with f.captured.summing(f, accumulate) as (sums, lam):
            yield CapturedSums(sums, None if accumulate else lam)
        return
    locations = f.forward_state.locate(f.params)
    explicit = accumulate is not None or batched(cotangent) or any(p.dtype in HALF_DTYPES for p in f.params)
    explicit = explicit or f.cotangent_scale is not None or f.search.sparse
    explicit = explicit or not ParameterAliases.can_replace(f.params, locations)
    if explicit or not f.forward_state.lock.try_replace():
        yield ExplicitSums(f, accumulate)
        return
    aliases = ParameterAliases(f.params, locations)
    with f.using_aliases(aliases):
        yield AutogradSums(f, aliases)


class AutogradSums:
    """Sums formed by autograd itself, in the .grad of the parameters' aliases.

    Those of a small theta are formed here: autograd launches an addition for each parameter.
    """

    lam: Tensor | None = None

    def __init__(self, f: Field, aliases: ParameterAliases):
        self._f, self._aliases = f, aliases
        self._together = sums_together(f.device, sum(x.nbytes for x in aliases.totals))

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool
    ) -> Sequence[Tensor | None]:
        if by_params:
            return self._pull_separately(reached, inputs, cotangents, self._f.leaves)
        if self._aliases.bypassed:
            return self._pull_separately(reached, inputs, cotangents, self._aliases.leaves, self._f.leaves)
        try:
            bars = run_backward(
                tuple(reached),
                tuple(cotangents),
                self._f.search.must_retain,
                False,  # create_graph
                (*inputs, *self._aliases.trainable),
                allow_unreachable=True,
                accumulate_grad=not self._together,
            )
        except RuntimeError as error:
            refuse_compiled(error)
            raise
        if self._aliases.add(bars[len(inputs) :]) if self._together else self._aliases.reached_anew():
            refuse_bypass(self._aliases, reached, inputs)
            if self._f.search.active:
                self._f.search.search_again(reached, inputs, self._aliases)
        return bars[: len(inputs)] if self._together else [x.grad for x in inputs]

    def _pull_separately(
        self,
        reached: Reached,
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *leaves: Sequence[Tensor],
    ) -> Sequence[Tensor | None]:
        """Return the cotangents of inputs as torch.autograd.grad does; add those of the parameters to the sums here.

        leaves: the tensors through which the graph reaches the parameters, each with one entry per parameter: the
        aliases, the parameters themselves, or both.
        """
        bars, terms = self._f.pull_to_leaves(reached, inputs, cotangents, tuple(chain(*leaves)))
        totals = [leaf.grad for leaf in self._aliases.leaves]
        into, added = [], []
        for total, bar in zip(totals * len(leaves), terms, strict=True):
            if total is not None and bar is not None:
                into.append(total)
                added.append(bar)
        if into:
            foreach_add_(into, added)
        return bars

    def total(self) -> list[Tensor | None]:
        return self._aliases.grads()


class CapturedSums:
    """Sums formed by captured programs, which transpose whole steps."""

    def __init__(self, sums: ProgramSums, lam: Tensor | None):
        self._sums, self.lam = sums, lam

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool
    ) -> Sequence[Tensor | None]:
        raise AssertionError("captured programs pull cotangents back themselves")

    def total(self) -> list[Tensor | None]:
        return self._sums.result()


class ExplicitSums:
    """Sums formed here, of the cotangents that torch.autograd.grad returns for each VJP.

    Needed for parameters that func reaches other than through a module, for sparse parameters and gradients, for
    batches of cotangents (vmap), for scaled cotangents, and for sums in a precision other than the parameters'.
    """

    lam: Tensor | None = None

    def __init__(self, f: Field, accumulate: str | None):
        self._f, self._leaves = f, f.leaves
        self._accumulator = (
            Accumulator(len(f.params)) if accumulate is None else PreciseAccumulator(accumulate, len(f.params))
        )

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool
    ) -> Sequence[Tensor | None]:
        del by_params  # the graph always leads to the parameters themselves
        bars, terms = self._f.pull_to_leaves(reached, inputs, cotangents, self._leaves)
        self._accumulator.add(terms)
        return bars

    def total(self) -> list[Tensor | None]:
        return self._accumulator.total


class PreciseAccumulator:
    """Sums gradients entry by entry, in float64 or with compensation: accumulate is "float64" or "compensated"."""

    def __init__(self, accumulate: str, length: int):
        self._sums = [running_sum(accumulate) for _ in range(length)]

    @property
    def total(self) -> list[Tensor | None]:
        return [x.total() for x in self._sums]

    def add(self, bars: Sequence[Tensor | None]) -> None:
        for x, bar in zip(self._sums, bars, strict=True):
            if bar is not None:
                bar = bar.to_dense() if is_sparse(bar) else bar
                x.add(bar.float() if bar.dtype in HALF_DTYPES else bar)


class Accumulator:
    """Sums gradients in place. An entry is None until something is added to it.

    Half-precision gradients are summed in float32, sparse ones as sparse tensors.
    """

    def __init__(self, length: int):
        self.total: list[Tensor | None] = [None] * length

    def add(self, bars: Sequence[Tensor | None], weight: float = 1.0) -> None:
        """Add weight * bars to total. bars are not modified: autograd may return one tensor for two inputs."""
        into: list[Tensor] = []
        added: list[Tensor] = []
        for i, bar in enumerate(bars):
            if bar is None:
                continue
            total = self.total[i]
            if total is None:
                self.total[i] = (bar.float() if bar.dtype in HALF_DTYPES else bar) * weight
            elif is_sparse(total) or is_sparse(bar):
                self.total[i] = sparse_sum(total, bar * weight)
            else:
                into.append(total)
                added.append(bar)
        if any(map(batched, added)):  # torch has no fused sum of batched tensors
            for total, bar in zip(into, added, strict=True):
                total.add_(bar, alpha=weight)
        elif into:
            foreach_add_(into, added, alpha=weight)
