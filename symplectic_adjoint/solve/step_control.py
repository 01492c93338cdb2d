"""Adaptive step size control: the error norm, the first step, and the factor from one step to the next.

None of it is on the graph: a step size is a constant, not a function of theta.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import foreach_abs
from symplectic_adjoint.errors import ResolutionWarning, warn_once
from symplectic_adjoint.field.captured import CapturableField, CapturedSteps
from symplectic_adjoint.field.few_launches import is_small
from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.solve.stiffness import StiffnessTest
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step

Norm = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """Return the root mean square over all components (Hairer, Norsett and Wanner I, eq. II.4.11)."""
    return torch.linalg.vector_norm(x).div_(math.sqrt(max(x.numel(), 1)))


def on_device(value: Any, device: torch.device) -> Tensor:
    """Return the value of a norm, a tensor or a number, as a tensor on the device."""
    exact = None if isinstance(value, Tensor | complex) else torch.float64
    return torch.as_tensor(value, dtype=exact, device=device)


def packed_norm(layout: Layout, norm: Norm | None) -> Norm:
    """Return the norm of the packed state: the caller's, applied to the unpacked state, or the default if None."""
    if norm is None:
        return layout.norm if layout.structured else rms_norm
    return norm if layout.is_identity else lambda x: norm(layout.unpack_errors(x))


@dataclass(frozen=True)
class StepControl:
    """The settings of step size control. Step sizes are magnitudes in the units of t; factors have no unit.

    rtol and atol are numbers or tensors like the state, of a real dtype.
    """

    rtol: float | Tensor
    atol: float | Tensor
    norm: Norm = rms_norm
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    controller: str = "I"
    max_num_steps: int = 2**31 - 1

    def error_ratio(self, step: Step, stiffness: StiffnessTest | None = None) -> float:
        """Return error / tolerance of the step, accepted up to 1. This is the step's only device synchronisation.

        stiffness: a test whose sample of the step, if it is due, is read along.
        """
        numbers = step.measured_norms()
        if numbers is not None and step.f.resolution is not None:
            self.warn_of_resolution(step.f.resolution)
        if numbers is None:
            norms = self.error_norms(step)
            errors = len(norms)
            if stiffness is not None and stiffness.is_due:
                norms = [*norms, *stiffness.norms(step)]
            numbers = [norms[0].item()] if len(norms) == 1 else torch.stack(norms).tolist()
            if stiffness is not None and len(numbers) > errors:
                stiffness.sample = tuple(numbers[errors:])
                del numbers[errors:]
        if len(numbers) == 1:
            return numbers[0]
        high, low = numbers  # DOP853's combination, Hairer, Norsett and Wanner I, eq. II.10.17
        return high * high / math.sqrt(high * high + 0.01 * low * low) if high > 0.0 else high

    def error_norms(self, step: Step) -> list[Tensor]:
        """Return the norm of each error estimate over the tolerance: one, or two for dop853.

        Where f returns a lower precision than y's, the tolerance includes what rounding its values contributes to the
        error estimate: shorter steps would not make the solution more accurate, and their number would be unbounded.
        """
        errors, y_end = step.errors(), step.end()  # f calls in the caller's grad mode, the rest off the graph
        resolution = step.f.resolution
        with without_graph():
            rtol, atol, usual = self.rtol, self.atol, resolution is None and self.norm is rms_norm
            if usual and type(rtol) is float and type(atol) is float and is_small(y_end):
                return _rms_in_few_launches(errors, step.y, y_end, rtol, atol)
            if resolution is not None:
                self.warn_of_resolution(resolution)
            roundings = None if resolution is None else step.rounding(resolution)
            return self.norms_of(errors, step.y, y_end, roundings)

    def norms_of(self, errors: list[Tensor], y: Tensor, y_end: Tensor, roundings: list[Tensor] | None) -> list[Tensor]:
        """Return the norm of each error estimate over the tolerance; the estimates are overwritten.

        roundings: what rounding f's values contributes to each estimate, if they are coarser than the state's.
        """
        scale = self.tolerance(torch.maximum(y.abs(), y_end.abs()))
        scales = [scale] * len(errors) if roundings is None else [scale + x for x in roundings]
        return [self.measure(error.div_(x)) for error, x in zip(errors, scales, strict=True)]

    def first_step_numbers(
        self, y0: Tensor, f0: Tensor, longest: float | Tensor, second: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        """Return a trial step size h, and the sizes of f and of its change a unit of time there, over the tolerance.

        second: returns f after an explicit Euler step of size h.
        """
        scale = self.tolerance(y0.abs())
        d0, d1 = self.measure(y0 / scale), self.measure(f0 / scale)
        # What is not finite is reported by the step itself.
        unknown = (d0 < 1e-5) | (d1 < 1e-5) | ~(d0.isfinite() & d1.isfinite())
        h = torch.where(unknown, 1e-6, 0.01 * d0 / d1).clamp(max=longest)
        return [h, d1, self.measure((second(h) - f0) / scale) / h]

    @cached_property
    def _smallest_rtol(self) -> float:
        if isinstance(self.rtol, Tensor):
            return self.rtol.amin().item() if self.rtol.numel() else math.inf
        return self.rtol

    def warn_of_resolution(self, resolution: Resolution) -> None:
        """Warn, once a process, if rtol is below what func's values resolve."""
        least = resolution.coarsest / 100.0
        if self._smallest_rtol < least:
            warn_once(
                ResolutionWarning,
                "func",
                f"rtol = {self._smallest_rtol:.3g} is below what func's values resolve, {least:.3g}, as they have a "
                "lower precision than y0 (autocast?): steps are controlled to their rounding errors, and the solution "
                "is as accurate as func; give a larger rtol, or turn autocast off in func",
            )

    def tolerance(self, size: Tensor) -> Tensor:
        """Return atol + rtol size, which overwrites size."""
        return size.mul_(self.rtol).add_(self.atol)

    def worst_component(self, step: Step) -> int | None:
        """Return the flat index of the largest error / tolerance in a step, or None for an empty state."""
        with torch.no_grad():
            ratio = step.errors()[0].abs().div_(self.tolerance(torch.maximum(step.y.abs(), step.end().abs())))
        return int(ratio.flatten().nan_to_num(math.inf).argmax()) if ratio.numel() else None

    def measure(self, x: Tensor) -> Tensor:
        """Return norm(x); raise TypeError if it is not one number."""
        value = self.norm(x)
        if self.norm is rms_norm:
            return value
        value = on_device(value, x.device)
        if value.ndim != 0:
            raise TypeError(f"option 'norm' must return one number, got a tensor of shape {tuple(value.shape)}")
        return value.real

    def factor(self, ratio: float, previous: float, order: int) -> float:
        """Return the next step size over this one, from the error ratios of this step and the last accepted one.

        I: safety ratio^(-1/order). PI: safety ratio^(-0.7/order) previous^(0.4/order) (Gustafsson 1991;
        Hairer and Wanner II, eq. IV.2.43c), which damps the oscillation of I near a stability limit.
        With I, the factor after an accepted step is at least 1. Every factor lies in [dfactor, ifactor]; where the
        ratio says nothing of the size and the bound is infinite or zero, the bound's default takes its place.
        """
        if ratio == 0.0:
            return self.ifactor if math.isfinite(self.ifactor) else StepControl.ifactor
        if not math.isfinite(ratio):
            return self.dfactor or StepControl.dfactor
        if self.controller == "PI" and ratio <= 1.0:
            factor = self.safety * ratio ** (-0.7 / order) * max(previous, 1e-4) ** (0.4 / order)
            return min(self.ifactor, max(self.dfactor, factor))
        lowest = 1.0 if ratio <= 1.0 else self.dfactor
        return min(self.ifactor, max(lowest, self.safety * ratio ** (-1.0 / order)))


def _rms_in_few_launches(errors: list[Tensor], y: Tensor, y_end: Tensor, rtol: float, atol: float) -> list[Tensor]:
    """Return rms_norm(error / (atol + rtol max(|y|, |y_end|))) for each error, which is overwritten.

    The division by sqrt(n) is a part of the tolerance.
    """
    sizes, weight = foreach_abs([y, y_end]), math.sqrt(max(y.numel(), 1))
    scale = torch.maximum(*sizes, out=sizes[0])
    on_host = torch.tensor(atol * weight, dtype=torch.float64, device="cpu")
    torch.add(on_host, scale, alpha=rtol * weight, out=scale)
    return [torch.linalg.vector_norm(error.div_(scale)) for error in errors]


@torch.no_grad()
def initial_step(
    f: RightHandSide,
    t0: float,
    y0: Tensor,
    f0: Tensor,
    span: float,
    order: int,
    control: StepControl,
    code: CapturedSteps | None = None,
) -> float:
    """Return a first step size, signed like span (Hairer, Norsett and Wanner I, II.4 "Starting Step Size").

    f0: f(t0, y0). order: the power of h in the local error estimate. code: programs that may measure f instead. Calls
    f once, and reads the device once.
    """
    numbers = None if code is None else code.first_step(cast(CapturableField, f), t0, span, y0, f0)
    if numbers is None:
        signed = math.copysign(1.0, span)
        tensors = control.first_step_numbers(
            y0, f0, abs(span), lambda h: f(t0 + signed * h, torch.addcmul(y0, f0, signed * h))
        )
        numbers = torch.stack(tensors).tolist()
    else:
        f.f_calls += 2
    h, *slopes = numbers
    steepest = max(slopes)
    if not all(map(math.isfinite, slopes)):
        return math.copysign(h, span)
    h1 = 1e-6 if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / order)  # h is no larger then
    return math.copysign(min(100.0 * h, h1, abs(span)), span)
