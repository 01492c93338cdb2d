"""Adaptive step size control: the error norm, the first step, and the factor from one step to the next.

None of it is on the graph: a step size is a constant, not a function of theta.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from symplectic_adjoint.errors import ResolutionWarning, warn_once
from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.field.layout import Layout
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step

Norm = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """Return the root mean square over all components (Hairer, Norsett and Wanner I, eq. II.4.11)."""
    return torch.linalg.vector_norm(x).div_(math.sqrt(max(x.numel(), 1)))


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

    def error_ratio(self, step: Step) -> float:
        """Return error / tolerance of the step, accepted up to 1. This is the step's only device synchronisation."""
        norms = self.error_norms(step)
        if len(norms) == 1:
            return norms[0].item()
        high, low = torch.stack(norms).tolist()  # DOP853's combination, Hairer, Norsett and Wanner I, eq. II.10.17
        return high * high / math.sqrt(high * high + 0.01 * low * low) if high > 0.0 else high

    def error_norms(self, step: Step) -> list[Tensor]:
        """Return the norm of each error estimate over the tolerance: one, or two for dop853.

        Where f returns a lower precision than y's, the tolerance includes what rounding its values contributes to the
        error estimate: shorter steps would not make the solution more accurate, and their number would be unbounded.
        """
        errors, y_end = step.errors(), step.end()  # f calls in the caller's grad mode, the rest off the graph
        resolution = step.f.resolution
        with without_graph():
            scale = self.tolerance(torch.maximum(step.y.abs(), y_end.abs()))
            scales = [scale] * len(errors)
            if resolution is not None:
                self._warn_of_resolution(resolution)
                scales = [scale + x for x in step.rounding(resolution)]
            return [self.measure(error.div_(x)) for error, x in zip(errors, scales, strict=True)]

    @cached_property
    def _smallest_rtol(self) -> float:
        if isinstance(self.rtol, Tensor):
            return self.rtol.amin().item() if self.rtol.numel() else math.inf
        return self.rtol

    def _warn_of_resolution(self, resolution: Resolution) -> None:
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
        value = torch.as_tensor(value, device=x.device)
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


@torch.no_grad()
def initial_step(
    f: RightHandSide, t0: float, y0: Tensor, f0: Tensor, span: float, order: int, control: StepControl
) -> float:
    """Return a first step size, signed like span (Hairer, Norsett and Wanner I, II.4 "Starting Step Size").

    f0: f(t0, y0). order: the power of h in the local error estimate. Calls f once, and reads the device once.
    """
    scale, longest = control.tolerance(y0.abs()), abs(span)
    d0, d1 = control.measure(y0 / scale), control.measure(f0 / scale)
    # What is not finite is reported by the step itself.
    unknown = (d0 < 1e-5) | (d1 < 1e-5) | ~(d0.isfinite() & d1.isfinite())
    h0 = torch.where(unknown, 1e-6, 0.01 * d0 / d1).clamp(max=longest)
    signed = math.copysign(1.0, span) * h0
    f1 = f(t0 + signed, torch.addcmul(y0, f0, signed))
    h, *slopes = torch.stack([h0, d1, control.measure((f1 - f0) / scale) / h0]).tolist()
    steepest = max(slopes)
    if not all(map(math.isfinite, slopes)):
        return math.copysign(h, span)
    h1 = 1e-6 if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / order)  # h is no larger then
    return math.copysign(min(100.0 * h, h1, longest), span)
