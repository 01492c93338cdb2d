"""capture=True: the steps of one pass, each in one run of a program that was recorded before.

On a card a program is a CUDA graph, which launches all kernels of a step at once. Elsewhere it is called.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from symplectic_adjoint.errors import NotCapturable, RecordedAnewWarning, SolverError, warn_once
from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.cuda_graphs import graphs_for
from symplectic_adjoint.field.forward_state import ForwardState
from symplectic_adjoint.field.lost_gradients import LostGradientSearch
from symplectic_adjoint.field.precision import MOST, coarsest_eps, value_bound
from symplectic_adjoint.field.program_buffers import ProgramBuffers
from symplectic_adjoint.field.program_field import MakeMeasures, ProgramField
from symplectic_adjoint.field.program_key import program_key, what_changed
from symplectic_adjoint.field.program_sums import ProgramSums
from symplectic_adjoint.field.program_table import ProgramTable
from symplectic_adjoint.field.sparse import is_sparse
from symplectic_adjoint.field.step_programs import Bounds, StepPrograms, Transposition
from symplectic_adjoint.methods.tableau import ButcherTableau

MOST_ANEW = 6
"""How often in a row programs may be recorded anew without a warning: for training, evaluation and last batches."""

_PROGRAMS: ProgramTable[StepPrograms] = ProgramTable()


class ProgramsOutdated(Exception):
    """Raised if the programs of a solve return other values than func: something that they froze has changed."""


class CapturableField(ProgramField, Protocol):
    """What capturing needs to know of f."""

    search: LostGradientSearch
    forward_state: ForwardState
    dtype: torch.dtype
    time_dtype: torch.dtype
    device: torch.device

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The parameters."""
        ...


def require_capturable(f: CapturableField) -> None:
    """Raise NotCapturable if the first call of func showed that no program can repeat its calls."""
    f.forward_state.require_pure("capture=True", NotCapturable)
    # With its cache on, autocast keeps the casts of weights from one call to the next; programs do without.
    kept_casts = f.forward_state.autocast_dtype is not None
    if f.search.direct or (f.search.must_retain and not kept_casts):
        raise NotCapturable(
            "capture=True: func uses a tensor that was computed outside it with a graph, where no other tensor can "
            "take its place (in a list, dict or object): pass it as odeint(..., params=(tensor,)), hold it in a "
            "variable of func, or leave capture out"
        )
    if any(map(is_sparse, f.params)):
        raise NotCapturable(
            "capture=True: a parameter of func is a sparse tensor, which has no single place in memory that programs "
            "could read: leave capture out"
        )
    for m in f.forward_state.reach.modules:
        if _replays_cuda_graphs(m):
            raise NotCapturable(
                f"capture=True: {type(m).__name__} in func was compiled with mode='reduce-overhead', which captures "
                "CUDA graphs of its own: compile it without that mode, or leave capture out"
            )


def _replays_cuda_graphs(module: Any) -> bool:
    """Return whether torch.compile made a module that captures CUDA graphs itself."""
    config = getattr(getattr(module, "dynamo_ctx", None), "compiler_config", None)
    return bool(config) and bool(config.get("triton.cudagraphs"))


def _eps_of(f: CapturableField) -> float:
    dtypes = [f.dtype, f.time_dtype, *(p.dtype for p in f.params), *f.search.precisions]
    return coarsest_eps(dtypes, f.device, f.forward_state.autocast_dtype, f.forward_state.reach.modules)


@dataclass(frozen=True)
class ErrorMeasure:
    """How steps are measured: the norms, their tolerances, and what tells them from others."""

    measures: MakeMeasures
    tolerances: tuple[float | Tensor, float | Tensor]
    key: Any


class CapturedSteps:
    """The programs of one pass: borrowed while steps are taken, and recorded when they are first needed.

    owner: the object that the programs are kept with. rows: how many rows of the extended tableau the steps use. state:
    what f depends on. measured: how attempted steps are measured by their program; None if they are not. layout: what
    tells the state's structure from others; parts: the sizes of its parts. knows_k1: whether steps after the first
    start from their k_1. reads_at_once: whether a first value that differs must show before a step is taken. compiled:
    whether the programs call compiled code. auto: whether to give up if they are recorded anew in every solve. fresh:
    whether to forget those of earlier solves.
    """

    def __init__(
        self,
        owner: Any,
        tableau: ButcherTableau,
        rows: int,
        like: Tensor,
        time_dtype: torch.dtype,
        state: ForwardState,
        counters: CallCounters,
        measured: ErrorMeasure | None,
        *,
        layout: Any,
        parts: tuple[int, ...],
        knows_k1: bool,
        reads_at_once: bool,
        compiled: bool,
        auto: bool,
        fresh: bool = False,
    ):
        self._owner, self._tableau, self._rows, self._time_dtype = owner, tableau, rows, time_dtype
        self._like, self._state, self.counters, self._measured = like.detach(), state, counters, measured
        self._layout = layout
        self._parts, self._reads_at_once = parts, reads_at_once or (knows_k1 and measured is None)
        self._knows_k1, self._compiled, self._auto, self._fresh = knows_k1, compiled, auto, fresh
        self._key: Any = None
        self._open = self._compared = False
        self._held: list[tuple[Tensor, int]] = []
        """The state and the slope that lie in the buffers of a step's end, each with its version."""
        self._is_forward = True
        self._programs: StepPrograms | None = None
        self.recorded = self.replayed = 0
        """How many programs this pass recorded, and how often it ran one."""

    def for_another_pass(self) -> Self:
        """Return the same for a pass of the backward pass, with the key of the forward pass."""
        other = copy(self)
        other._held = []
        other._open, other._compared, other._fresh, other._programs = False, True, False, None
        other._is_forward = False
        other.recorded = other.replayed = 0
        return other

    @property
    def is_open(self) -> bool:
        """Whether steps may use programs now."""
        return self._open

    @property
    def is_graph(self) -> bool:
        """Whether programs are replayed as CUDA graphs."""
        return self._like.device.type == "cuda"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let the steps in the block use programs, which are given back at the end."""
        if self._open:  # the solves of a backward pass within its sweep
            yield
            return
        self._open = True
        try:
            yield
        except SolverError:
            if self._programs is not None and self._programs.buffers.norms[-1].item():
                raise ProgramsOutdated from None  # the steps were those of another function
            raise
        finally:
            self._open = False
            self._give_back()

    @contextmanager
    def summing(self, f: CapturableField, accumulate: str | None) -> Iterator[tuple[ProgramSums, Tensor]]:
        """Yield the sums of dL/dtheta, to which the transposed steps in the block add, and the buffer of lam."""
        with self.opened():
            programs = self._borrowed(f)
            yield programs.sums_for(f.program_leaves, accumulate), programs.buffers.lam_state

    def first_step(self, f: CapturableField, t: float, span: float, y: Tensor, k: Tensor) -> list[float] | None:
        """Return StepControl.first_step_numbers at the start of a solve, f(t, y) = k; None if no program measures them.

        Compares k with the value of a program. Raises ProgramsOutdated if they differ by more than rounding.
        """
        self._compare_first(f, t, span, y, k)
        return self.read_norms(3) if self.measures else None

    def evaluate(
        self, f: CapturableField, h: float, times: Sequence[float], y: Tensor, ks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor, int]:
        """Return the k_i at `times`, the first of which are known, y+, and the number of f calls.

        The k_i are overwritten by the next step.
        """
        rows, calls = max(len(times), self._tableau.stages), 0
        programs = self._borrowed(f)
        if ks and not self._compared:
            self._compare_first(f, times[0], h, y, ks[0])
            ks, calls = (ks if self._knows_k1 else ()), 2 if self.measures else 1
        b, known = programs.buffers, len(ks)
        self._start_from(b, y, ks[0] if ks else None)
        b.set_scalars(h, times)
        programs.attempt(f, self.counters, known, rows)
        end = b.end_state.clone()
        self._hold(end, b.end_slope if rows > self._tableau.stages else None)
        return list(b.stages[:rows]), end, calls + rows - known

    def _start_from(self, b: ProgramBuffers, y: Tensor, k: Tensor | None) -> None:
        """Let the next program start from y and k_1 = k: they are copied unless the last one left them there."""
        held = {id(x) for x, version in self._held if version == x._version}
        b.set_start(None if id(y) in held else y, None if id(k) in held else k)
        self._hold(y, k)

    def _hold(self, y: Tensor, k: Tensor | None) -> None:
        self._held = [(x, x._version) for x in (y, k) if x is not None and not x.is_inference()]

    def _compare_first(self, f: CapturableField, t: float, span: float, y: Tensor, k: Tensor) -> None:
        """Run the program that compares the first value of func with its own."""
        self._compared, programs = True, self._borrowed(f)
        b = programs.buffers
        self._start_from(b, y, k)
        b.set_scalars(span, [t])
        programs.start(f, self.counters, self._bounds(f))
        if self._reads_at_once and b.norms[-1].item():
            raise ProgramsOutdated

    @property
    def in_use(self) -> bool:
        """Whether programs have been used in this pass."""
        return self._programs is not None

    def compare_once_more(self, f: CapturableField, t: float, y: Tensor, k: Tensor) -> None:
        """Run the program that compares another value of func, f(t, y) = k, with its own.

        The first norm is then whether y is finite.
        """
        assert self._programs is not None
        b = self._programs.buffers
        self._start_from(b, y, k)
        b.set_scalars(0.0, [t])
        self._programs.compare(f, self.counters, self._bounds(f))

    def _bounds(self, f: CapturableField) -> Bounds:
        eps = _eps_of(f)
        return Bounds(value_bound(eps), min(eps, MOST), self._parts)

    @property
    def measures(self) -> bool:
        """Whether attempted steps are measured by their program."""
        return self._measured is not None

    def read_norms(self, count: int) -> list[float]:
        """Return the first norms that the last program measured. Waits for the device.

        Raises ProgramsOutdated if the first value of this pass showed that.
        """
        assert self._programs is not None
        if self._programs.buffers.ks.is_cuda:
            torch.cuda.current_stream(self._like.device).synchronize()
        *norms, outdated = self._programs.buffers.norms_on_host.tolist()
        if outdated:
            raise ProgramsOutdated
        return norms[:count]

    def holds(self, x: Tensor) -> bool:
        """Return whether x is the buffer of lam, which transposed steps then update."""
        return self._programs is not None and x is self._programs.buffers.lam_state

    def transpose(
        self,
        f: CapturableField,
        h: float,
        times: Sequence[float],
        y: Tensor,
        ks: Sequence[Tensor],
        lam: Tensor,
        kind: Transposition,
        mus: Sequence[tuple[Sequence[float], Tensor]],
    ) -> tuple[ProgramBuffers, int, int]:
        """Transpose a step that starts from the stages ks. Return the buffers with the results, f calls and VJPs.

        mus: of each dense output its weights b_i(sigma) and its cotangent.
        """
        programs = self._borrowed(f)
        b = programs.buffers
        self._held = []
        b.set_scalars(h, times)
        b.set_stages(ks[: kind.known])
        b.y_state.copy_(y)
        if not kind.updates:
            b.lam_state.copy_(lam)
        if kind.outputs:
            b.mu.zero_()
            for weights, mu in mus:
                b.mu.addr_(b.numbers(weights), b.flat(mu))
        return b, *programs.transpose(f, self.counters, kind)

    def forget(self) -> None:
        """Free the programs of this function, and their memory."""
        _PROGRAMS.forget(self._owner)

    def _borrowed(self, f: CapturableField) -> StepPrograms:
        """Return the programs of this pass."""
        if self._programs is None:
            if self._key is None:
                require_capturable(f)
                state = program_key(self._state, self.counters, f.program_leaves, self._like)
                measure = None if self._measured is None else self._measured.key
                kind = (self._tableau, self._rows, self._time_dtype, self._compiled, self._layout)
                self._key = (*kind, measure, state)
            if self._fresh:
                self.forget()
            before = _PROGRAMS.last_key(self._owner)
            programs = _PROGRAMS.borrow(self._owner, self._key, self._made, counts=self._is_forward)
            if self._is_forward and not programs.runs_python:
                self._give_up_or_warn(before)
            self._programs = programs
            programs.enter()
            programs.buffers.norms[-1].zero_()
            if self._measured is not None:
                programs.buffers.set_tolerances(self._measured.tolerances)
        return self._programs

    def _give_up_or_warn(self, before: Any) -> None:
        """Say if programs are recorded anew in every solve: with capture="auto" by NotCapturable, else once.

        before: the key of the programs that were used before these.
        """
        made = _PROGRAMS.made_in_a_row(self._owner)
        if made <= MOST_ANEW or before is None or before == self._key:
            return
        message = (
            f"capture=True: the programs of func were recorded anew in each of the last {made} solves, because "
            f"{what_changed(before[-1], self._key[-1])} from one to the next, and that takes longer than it saves: "
            "update tensors in place (x.copy_(value)), hold numbers that change in a buffer, or leave capture out"
        )
        if self._auto:
            raise NotCapturable(message)
        warn_once(RecordedAnewWarning, "capture", message)

    def _made(self) -> StepPrograms:
        with torch.inference_mode(False):
            buffers = ProgramBuffers(self._tableau, self._rows, self._like, self._time_dtype)
        measures = None if self._measured is None else self._measured.measures
        hidden = self._compiled or bool(self._state.reach.opaque_modules)
        return StepPrograms(buffers, graphs_for(self._like.device), measures, hidden=hidden)

    def _give_back(self) -> None:
        programs, self._programs, self._held = self._programs, None, []
        if programs is None:
            return
        self.recorded += programs.recorded
        self.replayed += programs.replayed
        programs.leave()
        _PROGRAMS.give_back(self._owner, self._key, programs)
