"""One attempted step and one transposed step as programs over static buffers.

The programs are those of steps/runge_kutta.py and steps/transpose.py, with the step size, the times and the
coefficients on the device, so that all steps share them. They know nothing of CUDA: Graphs says whether a program is
called each time or replayed. f is passed to each call, and not held.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import hooks_on_all_modules
from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.capturable import only_capturable
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.cuda_graphs import Graphs
from symplectic_adjoint.field.program_buffers import ProgramBuffers
from symplectic_adjoint.field.program_field import MakeMeasures, ProgramField
from symplectic_adjoint.field.program_sums import ProgramSums


class Transposition(NamedTuple):
    """The kind of a transposed step.

    known: how many leading stages it starts from. rows: how many rows of the extended tableau it uses. outputs: whether
    it has dense outputs. with_time: whether it returns the cotangents of times. updates: whether it adds sum l_i to lam
    itself.
    """

    known: int
    rows: int
    outputs: bool
    with_time: bool
    updates: bool


class Bounds(NamedTuple):
    """How much two values of f may differ by rounding.

    relative: relative to each part of a state. of_whole: and to the whole state, which a part is computed from. parts:
    the sizes of the parts.
    """

    relative: float
    of_whole: float
    parts: tuple[int, ...]


class _Recorded(NamedTuple):
    """A recorded program: its replay (None: it is called), its f calls, and the sums to which it adds."""

    replay: Callable[[], None] | None
    calls: int
    sums: tuple[int, ...]


class StepPrograms:
    """The programs of one function for one kind of state and step, with their buffers.

    hidden: whether torch does not show all operations of the function.
    """

    def __init__(self, buffers: ProgramBuffers, graphs: Graphs, measures: MakeMeasures | None, *, hidden: bool):
        self.buffers, self._graphs, self._measures, self._hidden = buffers, graphs, measures, hidden
        self._recorded: dict[Any, _Recorded] = {}
        self._stages: dict[Transposition, tuple[int, ...]] = {}
        self._sums: ProgramSums | None = None
        self._leaves: Any = None
        self.recorded = self.replayed = 0
        """How many programs were recorded, and how often one ran, since these were last set to zero."""

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

    def start(self, f: ProgramField, counters: CallCounters, bounds: Bounds) -> None:
        """Compare k_1, as set_start set it, with f at the first time and y; measure what the first step depends on.

        h is the span of the solve. The results are norms.
        """
        self._run("start", lambda: self._start(f, bounds), counters, calls=1 if self._measures is None else 2)

    def compare(self, f: ProgramField, counters: CallCounters, bounds: Bounds) -> None:
        """Compare k_1, as set_start set it, with f at the first time and y; the flag among the norms stays set.

        The first of the norms is whether y is finite.
        """
        self._run("compare", lambda: self._compare(f, bounds), counters, calls=1)

    def attempt(self, f: ProgramField, counters: CallCounters, known: int, rows: int) -> None:
        """Evaluate the rows after the known ones, the end of the step, and the norms of its errors.

        The step starts from the end of the last one, or from what set_start set.
        """
        self._run(("attempt", known, rows), lambda: self._attempt(f, known, rows), counters, calls=rows - known)

    def transpose(self, f: ProgramField, counters: CallCounters, kind: Transposition) -> tuple[int, int]:
        """Pull lam and the outputs' cotangents back through a step; add to the sums of dL/dtheta.

        Return the number of f calls and of VJPs.
        """
        assert self._sums is not None
        vjps = len(self._used_stages(kind))
        calls = vjps + _stages_before(kind) - kind.known
        scale = None if f.cotangent_scale is None else f.cotangent_scale.largest
        used: list[int] = []

        def body() -> None:
            used[:] = self._transpose(f, kind)

        key = ("transpose", kind, scale)
        # Autograd sums the gradient of a parameter in the stream in which the caller's graph first met it, and that
        # cannot be captured. The aliases are new to autograd.
        with nullcontext() if self.runs_python or key in self._recorded else f.aliased():
            which = self._run(key, body, counters, calls=calls, used=used)
        self._sums.mark_used(which)
        return calls, vjps

    def sums_for(self, leaves: Sequence[Tensor], accumulate: str | None) -> ProgramSums:
        """Return the sums of dL/dtheta, set to zero; programs that add to those of other leaves are forgotten."""
        kinds = [accumulate, *((x.data_ptr(), x.shape, x.stride(), x.dtype, x.requires_grad) for x in leaves)]
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
    ) -> Sequence[int]:
        """Run a program, which is recorded at its first run. Return which sums it adds to."""
        self.replayed += 1
        recorded = self._recorded.get(key)
        if recorded is None:
            return self._record(key, body, counters, calls, used).sums
        if recorded.replay is not None:
            recorded.replay()
            counters.add(recorded.calls)
            return recorded.sums
        with _on_its_own():
            body()
        return used or ()

    def _record(
        self, key: Any, body: Callable[[], None], counters: CallCounters, calls: int, used: list[int] | None
    ) -> _Recorded:
        """Run body once, refusing what cannot be captured, and record it. Its results are those of that run."""
        shown = not (self._hidden or torch.is_anomaly_enabled())  # whose search for NaN reads every result
        with self._graphs.aside():
            with only_capturable(shown=shown), counters.traced(calls), _on_its_own():
                body()
            sums = tuple(used or ())
            with counters.at(0), _on_its_own():
                replay = self._graphs.record(body)
        self._recorded[key] = recorded = _Recorded(replay, calls, sums)
        self.recorded += 1
        return recorded

    @torch.no_grad()
    def _compare(self, f: ProgramField, bounds: Bounds) -> None:
        b = self.buffers
        b.start_from_end(k_1=True)
        outdated = self._differs(f.evaluate(b.times()[0], b.y_state), bounds)
        b.set_norms([b.y.isfinite().all()], outdated=outdated | (b.norms[-1] != 0))

    def _differs(self, found: Tensor, bounds: Bounds) -> Tensor:
        """Return whether a value differs from k_1 by more than rounding, in one of the state's parts."""
        b = self.buffers
        known, whole = b.ks[0], _size(b.ks[0])
        off = [
            ~(_size(x - k) <= bounds.relative * _size(k) + bounds.of_whole * whole)
            for x, k in zip(b.flat(found).split(bounds.parts), known.split(bounds.parts), strict=True)
            if k.numel()
        ]
        # Where k_1 is not finite, the step itself says so.
        return torch.stack(off).any() & whole.isfinite()

    @torch.no_grad()
    def _start(self, f: ProgramField, bounds: Bounds) -> None:
        b = self.buffers
        b.start_from_end(k_1=True)
        found, known = f.evaluate(b.times()[0], b.y_state), b.stages[0]
        norms, span = [], b.scalars[0]
        if self._measures is not None:

            def second(h: Tensor) -> Tensor:
                h = torch.copysign(h.double(), span)
                return f.evaluate((b.scalars[1] + h).to(b.time_dtype), torch.addcmul(b.y_state, known, h.to(b.dtype)))

            norms = self._measures(b.tolerances).first_step_numbers(b.y_state, known, span.abs(), second)
        b.set_norms(norms, outdated=self._differs(found, bounds))

    @torch.no_grad()
    def _attempt(self, f: ProgramField, known: int, rows: int) -> None:
        b = self.buffers
        b.start_from_end(k_1=known > 0)
        weights = b.step_weights()
        self._evaluate(f, weights, known, rows)
        if self._measures is not None:
            eps = None if f.resolution is None else f.resolution.eps
            roundings = None if eps is None else b.roundings(weights, rows, eps)
            errors = b.errors(weights, rows)
            b.set_norms(self._measures(b.tolerances).norms_of(errors, b.y_state, b.end_state, roundings))

    def _evaluate(self, f: ProgramField, weights: Tensor, known: int, rows: int) -> None:
        """Evaluate the stages after the known ones, and the end of the step if there are enough."""
        b, s = self.buffers, self.buffers.tableau.stages
        if f.compiled is not None:
            new, end, _ = f.compiled.evaluate_on(b.scalars[: 1 + rows], b.y_state, b.stages[:known])
            for row, k in zip(b.stages[known:rows], new, strict=True):
                row.copy_(k)
            if end is not None:
                b.end_state.copy_(end)
            return
        times = b.times()
        for i in range(known, rows):
            b.stages[i].copy_(f.evaluate(times[i], b.view(b.state(weights, i))))
        if rows == s:
            b.step_end(weights)

    @torch.no_grad()
    def _transpose(self, f: ProgramField, kind: Transposition) -> Sequence[int]:
        """Transpose the step, and return the indices of the sums to which it added."""
        b, sums, stages = self.buffers, self._sums, self._used_stages(kind)
        assert sums is not None
        used: set[int] = set()
        of_times: list[Sequence[Tensor]] = []
        weights, times, before = b.step_weights(), b.times(), _stages_before(kind)
        if before > kind.known:
            self._evaluate(f, weights, kind.known, before)
        if f.compiled is not None and not kind.outputs:
            return self._transpose_compiled(f, f.compiled, weights, kind)
        if kind.rows < b.rows:
            b.ks[kind.rows :].zero_()
        for i in reversed(range(kind.rows)):
            if i not in stages:
                b.ks[i].zero_()
                continue
            k, reached, inputs = _linearized(f, times[i], b.view(b.state(weights, i)), with_time=kind.with_time)
            self._note_value(weights, i, k, kind)
            w = b.view(b.cotangent(weights, i, outputs=kind.outputs))
            leaves, others = f.program_leaves, f.leaves_beside_aliases
            bars = f.pull((reached,), (*inputs, *leaves, *others), (w,))
            b.stages[i].zero_() if bars[0] is None else b.stages[i].copy_(bars[0])
            of_leaves = bars[len(inputs) :]
            for part in (of_leaves[: len(leaves)], of_leaves[len(leaves) :]):
                used.update(sums.add(part) if part else ())
            if kind.with_time:
                tau = torch.zeros_like(b.scalars[0]) if bars[1] is None else bars[1].double()
                of_times.append((tau, b.tableau.floats.c[i] * tau, _inner(k, w)))
            del k, reached, inputs, bars, of_leaves, w
        b.add_stages(into_lam=kind.updates)
        self._set_time_sums(of_times)
        return sorted(used)

    def _transpose_compiled(
        self, f: ProgramField, compiled: CompiledSteps, weights: Tensor, kind: Transposition
    ) -> Sequence[int]:
        """Transpose a step without outputs, whose stages are known, each stage in one call of compiled code."""
        b, s, sums = self.buffers, self.buffers.tableau.stages, self._sums
        assert sums is not None
        leaves = [(i, p) for i, p in enumerate(f.program_leaves) if p.requires_grad]
        used: set[int] = set()
        of_times: list[Sequence[Tensor]] = []
        ls: list[Tensor | None] = [None] * s
        ks, params, totals = list(b.stages[: s - 1]), [p for _, p in leaves], [sums.totals[i] for i, _ in leaves]
        scalars = b.stage_scalars(compiled.stage_coefficients)
        for i in reversed(range(s)):
            which, ls[i], k, *tau_w = compiled.stage_vjp(
                scalars[i], b.y_state, ks[:i], b.lam_state, ls, params, totals, with_time=kind.with_time
            )
            self._note_value(weights, i, k, kind)
            used |= {at for (at, _), one in zip(leaves, which, strict=True) if one}
            if kind.with_time:
                tau, w = tau_w[0].double(), tau_w[1]
                of_times.append((tau, b.tableau.floats.c[i] * tau, _inner(k, w)))
        b.ks.zero_()
        for row, l_i in zip(b.stages, ls, strict=False):
            if l_i is not None:
                row.copy_(l_i)
        b.add_stages(into_lam=kind.updates)
        self._set_time_sums(of_times)
        return sorted(used)

    def _set_time_sums(self, of_times: Sequence[Sequence[Tensor]]) -> None:
        for total, terms in zip(self.buffers.time_sums.unbind(), zip(*of_times, strict=True), strict=False):
            total.copy_(torch.stack(terms).sum())

    def _note_value(self, weights: Tensor, i: int, k: Tensor, kind: Transposition) -> None:
        """Keep what the value of stage i is compared by: its difference from the kept one, and the end of the step."""
        b, s = self.buffers, self.buffers.tableau.stages
        if i < kind.known:
            size = _size(b.stages[i])
            b.differences[i].copy_(torch.stack([_size(k - b.stages[i]), size, size]))
        if kind.with_time and kind.outputs:
            b.view(b.values[i]).copy_(k)
        if i == s - 1:
            if kind.rows <= s:
                b.stages[i].copy_(k)
                b.step_end(weights)
            torch.stack([_size(b.end - b.after), _size(b.after), _size(k)], out=b.end_differences)
            b.after.copy_(b.y)

    def _used_stages(self, kind: Transposition) -> tuple[int, ...]:
        """Return the stages whose cotangents may not be zero."""
        if kind not in self._stages:
            terms = self.buffers.tableau.terms
            direct = set(range(kind.rows)) if kind.outputs else {i for i, _ in terms.b}
            later = {i for i in range(kind.rows) if any(j < kind.rows for j, _ in terms.columns[i])}
            self._stages[kind] = tuple(sorted(direct | later))
        return self._stages[kind]


def _stages_before(kind: Transposition) -> int:
    """Return how many leading stages a transposed step starts from, known ones and others."""
    return max(kind.known, kind.rows - 1)


@contextmanager
def _on_its_own() -> Iterator[None]:
    """Turn off what a program would keep of the solve that records it, or of the caller's.

    Autocast's cache frees the casts of weights at its end; tensors made in inference mode cannot be written elsewhere.
    """
    was = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            yield
    finally:
        torch.set_autocast_cache_enabled(was)


def _linearized(f: ProgramField, t: Tensor, y: Tensor, *, with_time: bool) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return f(t, y), the same with a graph, and the leaves of that: y, and t with_time."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        t = t.detach().requires_grad_(with_time)
        # FlopCounterMode's hooks need a node.
        k = f.evaluate(t.view_as(t), y.view_as(y)) if hooks_on_all_modules else f.evaluate(t, y)
    return k.detach(), k, (y, t) if with_time else (y,)


def _size(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, math.inf)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return Re sum conj(a) b in float64."""
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return (a.double() * b.double()).sum()
