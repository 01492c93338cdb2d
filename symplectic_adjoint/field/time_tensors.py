"""Times as func is passed them: 0-dim tensors of one dtype on one device."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from symplectic_adjoint.field.few_launches import launches_count
from symplectic_adjoint.field.times import Time, next_number

STEPS_AT_ONCE = 64
"""The steps whose times are moved to the device in one transfer."""

ALIGNMENT = 16
"""Bytes from one time to the next, so that compiled code finds each where a tensor of its own would begin."""


class PlannedStep(Protocol):
    """A step to take, from t to t_end = t + h."""

    @property
    def t(self) -> float: ...

    @property
    def h(self) -> float: ...

    @property
    def t_end(self) -> float: ...


class TimeTensors:
    """Makes the tensors of times: on the CPU one at a time, on a card those of known steps together."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self._dtype, self._device = dtype, device
        self._steps: Sequence[PlannedStep] = ()
        self._nodes: Sequence[float] = ()
        self._at: dict[float, int] = {}
        """By time, its place in `_values`."""
        self._values: Tensor | None = None
        self._version = 0
        self._spacing = max(1, ALIGNMENT // dtype.itemsize)
        self._page = -1
        self._changed = False
        """Whether func was seen to change a time in place: it then gets a tensor of its own in each call."""

    def one_by_one(self) -> "TimeTensors":
        """Return tensors of times that are made when a call needs one, for a solve whose programs make their own."""
        other = TimeTensors(self._dtype, self._device)
        other._changed = True
        return other

    def for_steps(self, steps: Sequence[PlannedStep], nodes: Sequence[float]) -> "TimeTensors":
        """Return the tensors of the stage times of these steps, in the order of time; nodes are the c_i."""
        other = TimeTensors(self._dtype, self._device)
        if len(steps) > 0 and launches_count(self._device):
            other._steps, other._nodes, other._changed = steps, sorted(set(nodes)), self._changed
        return other

    def expect(self, step: PlannedStep, nodes: Sequence[float]) -> None:
        """Prepare the times of the next step, unless all steps are known already."""
        if not self._steps and launches_count(self._device):
            self._load((step,), sorted(set(nodes)))

    def of(self, t: Time) -> Tensor:
        """Return the tensor of a time."""
        if type(t) is not float:
            return torch.as_tensor(t, dtype=self._dtype, device=self._device)
        known = self._known(t) if self._at or self._steps else None
        return torch.scalar_tensor(t, dtype=self._dtype, device=self._device) if known is None else known

    def adjacent(self, t: Time, direction: float) -> Time:
        """Return the number next to t, up or down by the sign of direction, in the dtype that func gets."""
        exact = torch.as_tensor(t, dtype=torch.float64, device="cpu").detach()
        near = next_number(exact.to(self._dtype), direction).double()
        return t + (near - exact) if isinstance(t, Tensor) else near.item()

    def _known(self, t: float) -> Tensor | None:
        if not launches_count(self._device):  # captured: the transfer would be repeated with what the host holds then
            return None
        if t not in self._at and self._steps:
            self._load_page(t)
        at, values = self._at.get(t), self._values
        if at is None or values is None or self._changed:
            return None
        if values._version != self._version:
            self._changed = True
            return None
        return values[at]

    def _load_page(self, t: float) -> None:
        """Load the steps around t, if t lies in one of them."""
        steps = self._steps
        sign = 1.0 if steps[0].h >= 0.0 else -1.0
        n = max(0, bisect_right(steps, sign * t, key=lambda step: sign * step.t) - 1)
        page, self._page = self._page, n // STEPS_AT_ONCE
        if page != self._page:
            first = self._page * STEPS_AT_ONCE
            self._load(steps[first : first + STEPS_AT_ONCE], self._nodes)

    def _load(self, steps: Sequence[PlannedStep], nodes: Sequence[float]) -> None:
        if self._changed or torch.is_inference_mode_enabled():  # whose tensors do not count changes
            return
        times = [_at_node(step, c) for step in steps for c in nodes]
        if steps[-1].t_end not in times:
            times.append(steps[-1].t_end)
        distinct = list(dict.fromkeys(times))
        padding = (0.0,) * (self._spacing - 1)
        padded = [x for t in distinct for x in (t, *padding)]
        host = torch.tensor(padded, dtype=self._dtype, pin_memory=self._device.type == "cuda", device="cpu")
        self._values = torch.empty_like(host, device=self._device).copy_(host, non_blocking=True)
        self._version = self._values._version
        self._at = {t: i * self._spacing for i, t in enumerate(distinct)}


def _at_node(step: PlannedStep, c: float) -> float:
    """Return the time of a stage, formed as the step forms it."""
    return step.t if c == 0.0 else step.t_end if c == 1.0 else step.t + c * step.h
