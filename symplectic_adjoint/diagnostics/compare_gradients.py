"""Measure the time, memory and error of every gradient on the caller's own model."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import Arguments, MethodKeywords, named_gradient, shows_keywords
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.diagnostics.check_gradient import relative_error, rounding_floor
from symplectic_adjoint.diagnostics.gradient_run import GradientRun
from symplectic_adjoint.diagnostics.measure_memory import MemoryUse, memory_of
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.gradients import GRADIENTS
from symplectic_adjoint.memory.byte_size import format_bytes
from symplectic_adjoint.solve.stats import Stats


@dataclass(frozen=True)
class GradientCost:
    """The cost of one gradient of the caller's model.

    Times are medians over the rounds. error: the largest relative error of the gradient of any input against autograd
    on the recorded grid. reason: why the numbers are None.
    """

    gradient: str
    forward_s: float | None = None
    backward_s: float | None = None
    memory: MemoryUse | None = None
    f_calls_forward: int | None = None
    f_calls_backward: int | None = None
    error: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class GradientComparison:
    """The results of compare_gradients, fastest first, failed gradients last. str() is a table.

    steps: how many steps each gradient took; None if these numbers differ.
    """

    rows: Sequence[GradientCost]
    device: str
    dtype: torch.dtype
    steps: int | None

    def __str__(self) -> str:
        table = [("gradient", "forward ms", "backward ms", "peak", "kept", "f calls", "error")]
        table += [_cells(row) for row in self.rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        name, *numbers = widths
        lines = ["  ".join([x.ljust(name), *map(str.rjust, xs, numbers)]) for x, *xs in table]
        lines += [f"{row.gradient}: {row.reason}" for row in self.rows if row.reason]
        steps = "" if self.steps is None else f"{self.steps} steps, "
        return "\n".join([f"{steps}{self.dtype}, {self.device}, {torch.get_num_threads()} threads", *lines])


def _cells(row: GradientCost) -> tuple[str, ...]:
    def shown(value: Any, text: Callable[[Any], str]) -> str:
        return "-" if value is None else text(value)

    calls = None if row.f_calls_forward is None else f"{row.f_calls_forward} + {row.f_calls_backward}"
    return (
        row.gradient,
        shown(row.forward_s, lambda s: f"{1e3 * s:.2f}"),
        shown(row.backward_s, lambda s: f"{1e3 * s:.2f}"),
        shown(row.memory, lambda m: format_bytes(m.peak_tensor_bytes)),
        shown(row.memory, lambda m: format_bytes(m.kept_tensor_bytes)),
        shown(calls, str),
        shown(row.error, lambda e: f"{e:.1e}"),
    )


@untraced
@shows_keywords(MethodKeywords)
def compare_gradients(
    func: FuncOrPair,
    y0: Any,
    t: Tensor,
    *,
    gradients: Sequence[str | Strategy] | None = None,
    rounds: int = 3,
    check: bool = True,
    **keywords: Unpack[MethodKeywords],
) -> GradientComparison:
    """Compute the gradient of the caller's problem in every way; measure time, memory, f calls and error of each.

    Takes odeint's rtol, atol, method, options and params. gradients: names in GRADIENTS, or objects; all names if left
    out. rounds: how often each gradient is timed; gradients take turns, so that a machine that slows down slows all of
    them. check: whether to measure errors, which takes the memory of gradient="backprop". Leaves the caller's
    parameters and their .grad unchanged. A gradient that fails (out of memory on a GPU, an unsupported combination)
    gets a row with the reason. mali uses its own method, whatever `method` is, and reversible wraps `method`: their ys
    and numbers of steps differ.

    Raises ValueError if rounds is not a positive integer, and odeint's errors for invalid arguments.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be a whole number, 1 or more, got {rounds!r}")
    given = Arguments.of("compare_gradients", keywords, func=func, y0=y0, t=t)
    trials = [_Trial(replace(given, gradient=one)) for one in (GRADIENTS if gradients is None else gradients)]
    for trial in trials:
        trial.warm_up()
    for _ in range(rounds):
        for trial in trials:
            trial.measure_time()
    for trial in trials:
        trial.measure_memory()
        if check:
            trial.measure_error()
    rows = sorted((trial.cost() for trial in trials), key=_total_s)
    steps = {trial.steps for trial in trials if trial.steps is not None}
    y = next((trial.y for trial in trials if trial.y is not None), None)
    return GradientComparison(
        rows,
        str(None if y is None else y.device),
        torch.get_default_dtype() if y is None else y.dtype,
        steps.pop() if len(steps) == 1 else None,
    )


def _total_s(row: GradientCost) -> float:
    return math.inf if row.forward_s is None or row.backward_s is None else row.forward_s + row.backward_s


class _Trial:
    """The measurements of one gradient, up to the first failure, which may be that the solve is refused."""

    def __init__(self, given: Arguments):
        self._name = named_gradient(given.gradient)[1]
        self._run: GradientRun | None = None
        self._samples: list[tuple[float, float]] = []
        self._memory: MemoryUse | None = None
        self._error: float | None = None
        self._reason: str | None = None
        try:
            self._run = GradientRun(given)
        except UnsupportedCombination as error:
            self._fail(error)

    @property
    def y(self) -> Tensor | None:
        return None if self._run is None else self._run.y

    @property
    def _stats(self) -> Stats | None:
        trajectory = None if self._run is None else self._run.trajectory
        return None if trajectory is None else trajectory.stats

    @property
    def steps(self) -> int | None:
        return None if self._stats is None else self._stats.accepted

    def warm_up(self) -> None:
        self._attempt(GradientRun.forward)
        self._attempt(GradientRun.backward)

    def measure_time(self) -> None:
        sample = self._attempt(_time_of)
        self._samples += [] if sample is None else [sample]

    def measure_memory(self) -> None:
        self._memory = self._attempt(memory_of)

    def measure_error(self) -> None:
        self._error = self._attempt(_error_of)

    def cost(self) -> GradientCost:
        stats = self._stats
        medians = [statistics.median(x) for x in zip(*self._samples, strict=True)] or [None, None]
        return GradientCost(
            gradient=self._name,
            forward_s=medians[0],
            backward_s=medians[1],
            memory=self._memory,
            f_calls_forward=None if stats is None else stats.f_calls_forward,
            f_calls_backward=None if stats is None else stats.f_calls_backward,
            error=self._error,
            reason=self._reason,
        )

    def _attempt(self, measure: Callable[[GradientRun], Any]) -> Any:
        """Return what measure returns, or None if it or an earlier attempt failed; keep the reason."""
        if self._run is None or self._reason is not None:
            return None
        try:
            return measure(self._run)
        except (RuntimeError, ValueError, MemoryError) as error:
            self._fail(error)
            self._run.discard()
            return None

    def _fail(self, error: Exception) -> None:
        self._reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _time_of(gradient_run: GradientRun) -> tuple[float, float]:
    """Return the seconds of a forward pass and of its backward pass."""
    gradient_run.discard()
    gc.collect()
    gc.disable()
    try:
        start = _now(gradient_run.y.device)
        gradient_run.forward()
        middle = _now(gradient_run.y.device)
        gradient_run.backward()
        return middle - start, _now(gradient_run.y.device) - middle
    finally:
        gc.enable()


def _error_of(gradient_run: GradientRun) -> float:
    """Return the largest relative error of the latest gradients against autograd on the recorded grid."""
    expected = gradient_run.expected_gradients()
    floor = rounding_floor(expected, gradient_run.precision)
    return max(relative_error(a, b, floor) for a, b in zip(gradient_run.gradients, expected, strict=True))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
