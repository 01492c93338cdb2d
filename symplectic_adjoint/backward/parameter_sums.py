"""dL/dtheta while it is being summed: one tensor a parameter, never one a stage."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint._torch_internals import foreach_add_, run_backward
from symplectic_adjoint.backward.running_sum import running_sum
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.layout import HALF_DTYPES
from symplectic_adjoint.field.lost_gradients import refuse_bypass
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.transforms import batched

Reached = Sequence[Tensor | GradientEdge]


class ParameterSums(Protocol):
    """Pulls cotangents back, and keeps the parameters' part of each."""

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool = False
    ) -> Sequence[Tensor | None]:
        """The cotangents of inputs, which are leaves made for this call; those of the parameters are added up."""
        ...

    def total(self) -> list[Tensor | None]:
        """One entry a parameter, None where nothing was added."""
        ...


@contextmanager
def parameter_sums(f: Field, cotangent: Tensor, accumulate: str | None = None) -> Iterator[ParameterSums]:
    """Sums for the calls of f inside. cotangent is like those that will be pulled back."""
    locations = f.forward_state.locate(f.params)
    parted = accumulate is not None or batched(cotangent) or any(p.dtype in HALF_DTYPES for p in f.params)
    if parted or not ParameterAliases.can_replace(f.params, locations):
        yield SumsOfParts(f, accumulate)
        return
    aliases = ParameterAliases(f.params, locations)
    with f.using_aliases(aliases):
        yield SumsInPlace(f, aliases)


class SumsInPlace:
    """autograd adds each part to what it has, in the .grad of aliases."""

    def __init__(self, f: Field, aliases: ParameterAliases):
        self._f, self._aliases = f, aliases

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool = False
    ) -> Sequence[Tensor | None]:
        if by_params:
            return self._pull_apart(reached, inputs, cotangents, self._f.params)
        if self._aliases.bypassed:
            return self._pull_apart(reached, inputs, cotangents, self._aliases.leaves, self._f.params)
        run_backward(
            tuple(reached),
            tuple(cotangents),
            self._f.search.must_retain,
            False,  # create_graph
            (*inputs, *self._aliases.trainable),
            allow_unreachable=True,
            accumulate_grad=True,
        )
        if self._aliases.reached_anew():
            refuse_bypass(self._aliases, reached, inputs)
        return [x.grad for x in inputs]

    def _pull_apart(
        self,
        reached: Reached,
        inputs: Sequence[Tensor],
        cotangents: Sequence[Tensor],
        *ways: Sequence[Tensor],
    ) -> Sequence[Tensor | None]:
        """ways: by what the graph leads to the parameters, each one entry a parameter."""
        bars = self._f.pull(reached, (*inputs, *chain(*ways)), cotangents)
        totals = [leaf.grad for leaf in self._aliases.leaves]
        into, added = [], []
        for total, bar in zip(totals * len(ways), bars[len(inputs) :], strict=True):
            if total is not None and bar is not None:
                into.append(total)
                added.append(bar)
        if into:
            foreach_add_(into, added)
        return bars[: len(inputs)]

    def total(self) -> list[Tensor | None]:
        return self._aliases.grads()


class SumsOfParts:
    """autograd hands out each part, which is added here.

    For parameters that func reaches without a module, and for sums in another precision than the parameters'.
    """

    def __init__(self, f: Field, accumulate: str | None):
        self._f = f
        self._accumulator = (
            Accumulator(len(f.params)) if accumulate is None else CarefulAccumulator(accumulate, len(f.params))
        )

    def pull(
        self, reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool = False
    ) -> Sequence[Tensor | None]:
        del by_params  # always
        bars = self._f.pull(reached, (*inputs, *self._f.params), cotangents)
        self._accumulator.add(bars[len(inputs) :])
        return bars[: len(inputs)]

    def total(self) -> list[Tensor | None]:
        return self._accumulator.total


class CarefulAccumulator:
    """Sums gradients entry by entry, as `accumulate` says."""

    def __init__(self, accumulate: str, length: int):
        self._sums = [running_sum(accumulate) for _ in range(length)]

    @property
    def total(self) -> list[Tensor | None]:
        return [x.total() for x in self._sums]

    def add(self, bars: Sequence[Tensor | None]) -> None:
        for x, bar in zip(self._sums, bars, strict=True):
            if bar is not None:
                x.add(bar.float() if bar.dtype in HALF_DTYPES else bar)


class Accumulator:
    """Sums gradients in place. An entry stays None as long as nothing was added to it.

    Those of half precision are summed in float32.
    """

    def __init__(self, length: int):
        self.total: list[Tensor | None] = [None] * length

    def add(self, bars: Sequence[Tensor | None], weight: float = 1.0) -> None:
        """total += weight bars, which are left alone: autograd may hand out one tensor for two inputs."""
        into: list[Tensor] = []
        added: list[Tensor] = []
        for i, bar in enumerate(bars):
            if bar is None:
                continue
            total = self.total[i]
            if total is None:
                self.total[i] = (bar.float() if bar.dtype in HALF_DTYPES else bar) * weight
            else:
                into.append(total)
                added.append(bar)
        if any(map(batched, added)):  # a batch of cotangents, for which torch has no fused sum
            for total, bar in zip(into, added, strict=True):
                total.add_(bar, alpha=weight)
        elif into:
            foreach_add_(into, added, alpha=weight)
