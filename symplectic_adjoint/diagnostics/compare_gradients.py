"""Every gradient on the caller's own model: what it costs in time and memory, and how exact it is."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint.arguments import Arguments, MethodKeywords, build_problem, named_gradient
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.diagnostics.check_gradient import names_of, relative, replayed, weights_like
from symplectic_adjoint.gradients import DEFAULT_GRADIENT, GRADIENTS
from symplectic_adjoint.memory.allocator import watch_memory
from symplectic_adjoint.memory.byte_size import format_bytes
from symplectic_adjoint.solve.trajectory import Trajectory


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of live tensors above those live before the call: at most, in the forward pass, and between the passes.

    Those of ys and of the gradients are in it; those of the parameters, y0 and the loss are not.
    """

    peak_tensor_bytes: int
    forward_peak_tensor_bytes: int
    kept_tensor_bytes: int


@dataclass(frozen=True)
class GradientCost:
    """One gradient of the caller's model. Medians over the rounds; reason says why numbers are None.

    error: the largest relative error of any input's gradient against autograd on the recorded grid.
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
    """What compare_gradients measured, fastest first; those that failed come last. str() is a table."""

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


def compare_gradients(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    gradients: Sequence[str | Strategy] | None = None,
    rounds: int = 3,
    check: bool = True,
    **keywords: Unpack[MethodKeywords],
) -> GradientComparison:
    """Solves and differentiates the caller's problem with each gradient, and measures time, memory, calls and error.

    Takes odeint's arguments. gradients: names in GRADIENTS or objects, all names if left out. rounds: how often each is
    timed, in turns, so that a machine that slows down slows all alike. check: whether the error is measured, which
    takes the memory of gradient="backprop". Nothing of the caller's is changed: no .grad, no parameter. A gradient
    that cannot be had here (out of memory on a GPU, a refusal) is a row with its reason. mali takes steps by its own
    method, whatever `method` is, and reversible by a wrap of it: their ys and numbers of steps are their own.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be a whole number, 1 or more, got {rounds!r}")
    given = Arguments.of("compare_gradients", keywords, func=func, y0=y0, t=t)
    trials = [_Trial(replace(given, gradient=one)) for one in (GRADIENTS if gradients is None else gradients)]
    for trial in trials:
        trial.warm_up()
    for _ in range(rounds):
        for trial in trials:
            trial.attempt(trial.time)
    for trial in trials:
        trial.attempt(trial.weigh)
        if check:
            trial.attempt(trial.judge)
    rows = sorted((trial.cost() for trial in trials), key=_total_s)
    steps = {trial.trajectory.stats.accepted for trial in trials if trial.trajectory is not None}
    y = trials[0].y if trials else None
    return GradientComparison(
        rows,
        str(None if y is None else y.device),
        torch.get_default_dtype() if y is None else y.dtype,
        steps.pop() if len(steps) == 1 else None,
    )


def measure_memory(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    gradient: str | Strategy = DEFAULT_GRADIENT,
    **keywords: Unpack[MethodKeywords],
) -> MemoryUse:
    """What one solve and its gradient have live at once, in exact bytes; takes odeint's arguments.

    It is computed twice, because what is made once a process does not count. Nothing of the caller's is changed.
    """
    trial = _Trial(Arguments.of("measure_memory", keywords, func=func, y0=y0, t=t, gradient=gradient))
    trial.forward()
    trial.backward()
    trial.weigh()
    assert trial.memory is not None
    return trial.memory


def _total_s(row: GradientCost) -> float:
    return math.inf if row.forward_s is None or row.backward_s is None else row.forward_s + row.backward_s


class _Trial:
    """One gradient: solved and differentiated as often as asked, with inputs of its own."""

    def __init__(self, given: Arguments):
        if named_gradient(given.gradient)[0].own_tableau is not None:
            given = replace(given, method=None)
        self._problem, self._strategy, packed = build_problem(given)
        self._name, self._t = self._problem.gradient_name, given.t.detach()
        self.y = packed.detach().clone().requires_grad_()
        self._inputs = {"y0": self.y, **names_of(self._problem, self._problem.parameters.trainable)}
        self._ys: Tensor | None = None
        self._cotangent: Tensor | None = None
        self._samples: list[tuple[float, float]] = []
        self._bars: Sequence[Tensor | None] = ()
        self._error: float | None = None
        self._reason: str | None = None
        self.trajectory: Trajectory | None = None
        self.memory: MemoryUse | None = None

    def attempt(self, measure: Callable[[], None]) -> None:
        """Unless an earlier attempt failed."""
        if self._reason is not None:
            return
        try:
            measure()
        except (RuntimeError, ValueError, MemoryError) as error:
            self._reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            self._ys, self._bars = None, ()

    def warm_up(self) -> None:
        self.attempt(self.forward)
        self.attempt(self.backward)

    def forward(self) -> None:
        with torch.enable_grad():
            self._ys, self.trajectory = run(self._problem, self._strategy, self.y, self._t)
        if self._cotangent is None:
            self._cotangent = weights_like(self._ys).to(self._ys.dtype)

    def backward(self) -> None:
        ys, self._ys = self._ys, None
        assert ys is not None and self._cotangent is not None
        inputs = list(self._inputs.values())
        self._bars = torch.autograd.grad(ys, inputs, self._cotangent, allow_unused=True)

    def time(self) -> None:
        self._bars = ()
        gc.collect()
        gc.disable()
        try:
            start = self._now()
            self.forward()
            middle = self._now()
            self.backward()
            self._samples.append((middle - start, self._now() - middle))
        finally:
            gc.enable()

    def weigh(self) -> None:
        self._bars = ()
        gc.collect()
        forward, backward = watch_memory(self.y.device.type, self.forward, self.backward)
        self.memory = MemoryUse(
            peak_tensor_bytes=max(forward.peak_bytes, backward.peak_bytes),
            forward_peak_tensor_bytes=forward.peak_bytes,
            kept_tensor_bytes=forward.left_bytes,
        )

    def judge(self) -> None:
        assert self.trajectory is not None and self._cotangent is not None
        with torch.enable_grad():
            again = replayed(self._problem, self.trajectory, self.y, None)
            expected = torch.autograd.grad(again, list(self._inputs.values()), self._cotangent, allow_unused=True)
        floor = max((x.norm().item() for x in expected if x is not None), default=0.0)
        floor *= 100 * torch.finfo(self.y.dtype).eps
        self._error = max(relative(a, b, floor) for a, b in zip(self._bars, expected, strict=True))

    def cost(self) -> GradientCost:
        stats = None if self.trajectory is None else self.trajectory.stats
        medians = [statistics.median(x) for x in zip(*self._samples, strict=True)] or [None, None]
        return GradientCost(
            gradient=self._name,
            forward_s=medians[0],
            backward_s=medians[1],
            memory=self.memory,
            f_calls_forward=None if stats is None else stats.f_calls_forward,
            f_calls_backward=None if stats is None else stats.f_calls_backward,
            error=self._error,
            reason=self._reason,
        )

    def _now(self) -> float:
        if self.y.device.type == "cuda":
            torch.cuda.synchronize(self.y.device)
        return time.perf_counter()
