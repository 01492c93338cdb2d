"""One attempted step and one transposed step as programs over static buffers.

The programs are those of steps/runge_kutta.py and steps/transpose.py, with the step size, the times and the
coefficients on the device, so that all steps share them. They know nothing of CUDA: Graphs says whether a program is
called each time or replayed. f is passed to each call, and not held.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.capturable import only_capturable
from symplectic_adjoint.field.cotangent_scale import CotangentScale
from symplectic_adjoint.field.cuda_graphs import Graphs
from symplectic_adjoint.field.program_buffers import ProgramBuffers
from symplectic_adjoint.field.program_sums import ProgramSums
from symplectic_adjoint.field.resolution import Resolution

Measure = Callable[[list[Tensor], Tensor, Tensor, list[Tensor] | None, Sequence[Tensor]], list[Tensor]]
"""(error estimates, y, y+, their roundings, rtol and atol) -> the norm of each error over the tolerance."""


class ProgramField(Protocol):
    """What the programs need of f."""

    cotangent_scale: CotangentScale | None

    @property
    def program_leaves(self) -> Sequence[Tensor]:
        """The tensors to which the graphs of f lead: the parameters, their stand-ins, or aliases."""
        ...

    def aliased(self) -> AbstractContextManager[None]:
        """Return a context in which aliases take the place of the parameters, where modules and variables hold them."""
        ...

    @property
    def resolution(self) -> Resolution | None:
        """The resolution of f's values, if that is coarser than the state's."""
        ...

    def evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, y), checked but not searched."""
        ...

    def pull(
        self, outputs: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Return the cotangents of inputs, as torch.autograd.grad does."""
        ...


class Transposition(NamedTuple):
    """The kind of a transposed step.

    known: how many leading stages it starts from. rows: how many rows of the extended tableau it uses. outputs: whether
    it has dense outputs. with_time: whether it returns the cotangents of times.
    """

    known: int
    rows: int
    outputs: bool
    with_time: bool


class StepPrograms:
    """The programs of one function for one kind of state and step, with their buffers."""

    def __init__(self, buffers: ProgramBuffers, graphs: Graphs, measure: Measure | None):
        self.buffers, self._graphs, self._measure = buffers, graphs, measure
        self._recorded: dict[Any, tuple[Callable[[], None] | None, int, tuple[int, ...]]] = {}
        self._sums: ProgramSums | None = None
        self._leaves: Any = None
        self.recorded = self.replayed = 0
        """How many programs were recorded, and how often one ran, since these were last set to zero."""

    @property
    def measures(self) -> bool:
        """Whether an attempted step also measures its error."""
        return self._measure is not None

    @property
    def runs_python(self) -> bool:
        """Whether func itself is called each time."""
        return self._graphs.runs_python

    def enter(self) -> None:
        """Prepare for use in the current stream."""
        self.recorded = self.replayed = 0
        self._graphs.enter()

    def leave(self) -> None:
        """End the use in the current stream."""
        self._graphs.leave()

    def call(self, f: ProgramField, counters: CallCounters) -> None:
        """Evaluate f at the first time and y, into k_1."""
        self._run("call", lambda: self._call(f), counters, calls=1)

    def attempt(self, f: ProgramField, counters: CallCounters, known: int, rows: int) -> None:
        """Evaluate the rows after the known ones, the end of the step, and the norms of its errors."""
        self._run(("attempt", known, rows), lambda: self._attempt(f, known, rows), counters, calls=rows - known)

    def transpose(self, f: ProgramField, counters: CallCounters, kind: Transposition) -> tuple[int, int]:
        """Pull lam and the outputs' cotangents back through a step; add to the sums of dL/dtheta.

        Return the number of f calls and of VJPs.
        """
        assert self._sums is not None
        vjps = sum(self._is_used(i, kind) for i in range(kind.rows))
        again = self._last_row_recomputed(kind) - kind.known
        scale = None if f.cotangent_scale is None else f.cotangent_scale.largest
        used: list[int] = []

        def body() -> None:
            used[:] = self._transpose(f, kind)

        key = ("transpose", kind, scale)
        # Autograd sums the gradient of a parameter in the stream in which the caller's graph first met it, and that
        # cannot be captured. The aliases are new to autograd.
        with nullcontext() if self.runs_python or key in self._recorded else f.aliased():
            which = self._run(key, body, counters, calls=again + vjps, used=used)
        self._sums.mark_used(which)
        return again + vjps, vjps

    def sums_for(self, leaves: Sequence[Tensor], accumulate: str | None) -> ProgramSums:
        """Return the sums of dL/dtheta, set to zero; programs that add to those of other leaves are forgotten."""
        kinds = [(x.data_ptr(), x.shape, x.stride(), x.dtype, x.requires_grad) for x in leaves]
        if self._sums is None or self._leaves != kinds:
            self._sums, self._leaves = ProgramSums(leaves, accumulate), kinds
            self._recorded = {key: x for key, x in self._recorded.items() if key[0] != "transpose"}
        self._sums.clear()
        return self._sums

    def _run(
        self,
        key: Any,
        body: Callable[[], None],
        counters: CallCounters,
        *,
        calls: int,
        used: list[int] | None = None,
    ) -> tuple[int, ...]:
        """Run a program, which is recorded at its first run. Return which sums it adds to."""
        self.replayed += 1
        if key not in self._recorded:
            self._record(key, body, counters, calls, used)
            return self._recorded[key][2]
        replay, calls, which = self._recorded[key]
        if replay is None:
            with _no_kept_casts():
                body()
            return tuple(used or ())
        replay()
        counters.add(calls)
        return which

    def _record(
        self, key: Any, body: Callable[[], None], counters: CallCounters, calls: int, used: list[int] | None
    ) -> None:
        """Run body once, refusing what cannot be captured, and record it. Its results are those of that run.

        What it adds to is put back before the recorded program runs: recording itself runs nothing on a card.
        """
        with self._graphs.warming_up(), only_capturable(), counters.traced(calls), _no_kept_casts():
            body()
        which = tuple(used or ())
        with counters.at(0), _no_kept_casts():
            replay = self._graphs.record(body)
        self._recorded[key] = (replay, calls, which)
        self.recorded += 1

    def _call(self, f: ProgramField) -> None:
        b = self.buffers
        with torch.no_grad():
            b.view(b.ks[0]).copy_(f.evaluate(b.times()[0], b.view(b.y)))

    @torch.no_grad()
    def _attempt(self, f: ProgramField, known: int, rows: int) -> None:
        b, s = self.buffers, self.buffers.tableau.stages
        weights, times = b.step_weights(), b.times()
        for i in range(known, rows):
            if i == s:
                b.end.copy_(b.step_end(weights))
            Y = b.end if i == s else b.state(weights, i)
            b.view(b.ks[i]).copy_(f.evaluate(times[i], b.view(Y)))
        if rows <= s:
            b.end.copy_(b.step_end(weights))
        if self._measure is not None:
            eps = None if f.resolution is None else f.resolution.eps
            roundings = None if eps is None else b.roundings(weights, rows, eps)
            errors = b.errors(weights, rows)
            norms = self._measure(errors, b.view(b.y), b.view(b.end), roundings, b.tolerances)
            for at, norm in zip(b.norms.unbind(), norms, strict=False):
                at.copy_(norm)
            b.norms_on_host.copy_(b.norms, non_blocking=True)

    def _transpose(self, f: ProgramField, kind: Transposition) -> tuple[int, ...]:
        """Transpose the step, and return the indices of the sums to which it added."""
        b, s, sums = self.buffers, self.buffers.tableau.stages, self._sums
        assert sums is not None
        used: set[int] = set()
        of_times: list[Sequence[Tensor]] = []
        with torch.no_grad():
            weights, times = b.step_weights(), b.times()
            for i in range(kind.known, self._last_row_recomputed(kind)):
                b.view(b.ks[i]).copy_(f.evaluate(times[i], b.view(b.state(weights, i))))
            b.ks[kind.rows :].zero_()
            for i in reversed(range(kind.rows)):
                if not self._is_used(i, kind):
                    b.ks[i].zero_()
                    continue
                Y = b.state(weights, i)
                if i == s:
                    b.end.copy_(Y)
                k, reached, inputs = _linearized(f, times[i], b.view(Y), with_time=kind.with_time)
                self._note_value(weights, i, k, kind)
                w = b.view(b.cotangent(weights, i, outputs=kind.outputs))
                bars = f.pull((reached,), (*inputs, *f.program_leaves), (w,))
                l = bars[0]  # noqa: E741 (the paper's name)
                b.ks[i].zero_() if l is None else b.view(b.ks[i]).copy_(l)
                used.update(sums.add(bars[len(inputs) :]))
                if kind.with_time:
                    tau = torch.zeros_like(b.scalars[0]) if bars[1] is None else bars[1].double()
                    of_times.append((tau, b.tableau.floats.c[i] * tau, _inner(k, w)))
                del reached, inputs, bars, l, w, Y, k
            torch.sum(b.ks[: kind.rows], 0, out=b.increment)
            for total, terms in zip(b.time_sums.unbind(), zip(*of_times, strict=True), strict=False):
                total.copy_(torch.stack(terms).sum())
        return tuple(sorted(used))

    def _note_value(self, weights: Tensor, i: int, k: Tensor, kind: Transposition) -> None:
        """Keep what the value of stage i is compared by: its difference from the kept one, and the end of the step."""
        b, s = self.buffers, self.buffers.tableau.stages
        if i < kind.known:
            kept = b.view(b.ks[i])
            size = _size(kept)
            b.differences[i].copy_(torch.stack([_size(k - kept), size, size]))
        if kind.with_time and kind.outputs:
            b.view(b.values[i]).copy_(k)
        if i == s - 1:
            b.view(b.k_last).copy_(k)
            if kind.rows <= s:
                b.view(b.ks[i]).copy_(k)
                b.end.copy_(b.step_end(weights))

    def _last_row_recomputed(self, kind: Transposition) -> int:
        """Return how many leading stages a transposed step starts from, known ones and others."""
        return max(kind.known, kind.rows - 1)

    def _is_used(self, i: int, kind: Transposition) -> bool:
        """Return whether the cotangent of stage i may not be zero."""
        terms = self.buffers.tableau.terms
        direct = kind.outputs or any(i == j for j, _ in terms.b)
        return direct or any(j < kind.rows for j, _ in terms.columns[i])


@contextmanager
def _no_kept_casts() -> Iterator[None]:
    """Turn off autocast's cache: a program would keep the addresses of casts that are freed with it."""
    was = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(was)


def _linearized(f: ProgramField, t: Tensor, y: Tensor, *, with_time: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return f(t, y), the same with a graph, and the leaves of that: y, and t with_time."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        t = t.detach().requires_grad_(with_time)
        k = f.evaluate(t, y)
    return k.detach(), k, (y, t) if with_time else (y,)


def _size(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, math.inf)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return Re sum conj(a) b in float64."""
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return (a.double() * b.double()).sum()
