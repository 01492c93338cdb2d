"""The outputs at repeated times, as functions of their own entries of t."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import forward_mode_is_active, is_wrapped, untraced
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.gate import Gate
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.repeated_times import RepeatedTimes
from symplectic_adjoint.solve.timeline import stack_times
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.transpose import inner


def repeat_outputs(problem: Problem, repeated: RepeatedTimes, trajectory: Trajectory, ys: Tensor, t: Tensor) -> Tensor:
    """Return ys at every entry of t, given those at its distinct times.

    As a function of its own time, a repeated output moves along f. So entry j of dL/dt is mu_j . f, and the first entry
    of that time has the rest: the sum over both is exact.
    """
    reached = len(trajectory.output_step)  # outputs beyond a failure are NaN
    call = _Repeats(problem, repeated, trajectory, [j for j in repeated.repeats if repeated.group[j] < reached])
    if not call.entries:
        return repeated.expand(ys)
    if transforming():
        differentiates = t.requires_grad or is_wrapped(t) or forward_mode_is_active()
    else:
        differentiates = torch.is_grad_enabled() and t.requires_grad
    if not differentiates:
        return repeated.expand(ys)
    if trajectory.on_graph:  # f is put there too, as it is now: nothing would show that it changed later
        f = trajectory.field.for_another_pass()
        with f.forward_state.reinstated(lambda x: x):
            expanded = call.moving(f, ys, t)
        trajectory.stats.f_calls_forward += f.f_calls
        return expanded
    return _Repeated.apply(call, ys, t, *trajectory.field.params)


@dataclass
class _Repeats:
    """The repeated outputs of a solve. entries: the entries of t whose time gradient is their own."""

    problem: Problem
    repeated: RepeatedTimes
    trajectory: Trajectory
    entries: Sequence[int]

    def slopes(self, f: Field, ys: Tensor, t: Tensor | None = None) -> dict[int, Tensor]:
        """Return f at each distinct time that is repeated; where f is not finite, zero."""
        groups = sorted({self.repeated.group[j] for j in self.entries})
        times = {g: None if t is None else t[self.repeated.first[g]] for g in groups}
        self.problem.reach.copied.require_none_assigned()
        found = {g: self.problem.slope(f, g, ys[g], times[g]) for g in groups}
        return {g: torch.where(k.isfinite(), k, 0.0) for g, k in found.items()}

    def time_bars(self, f: Field, ys: Tensor, grad_ys: Tensor) -> list[Tensor | float]:
        """Return what the repetitions add to dL/dt, by entry of t; the sum is zero."""
        slopes = self.slopes(f, ys)
        bars: list[Tensor | float] = [0.0] * len(self.repeated.group)
        for j in self.entries:
            g = self.repeated.group[j]
            bars[j] = inner(slopes[g], grad_ys[j])
            bars[self.repeated.first[g]] = bars[self.repeated.first[g]] - bars[j]
        return bars

    def moving(self, f: Field, ys: Tensor, t: Tensor) -> Tensor:
        """Return ys at every entry of t, with all their derivatives in t on the graph."""
        t = t.to(dtype=torch.float64, device="cpu")
        slopes = self.slopes(f, ys, t)
        rows = [ys[g] for g in self.repeated.group]
        for j in self.entries:
            g = self.repeated.group[j]
            moved = (t[j] - t[self.repeated.first[g]]).to(dtype=ys.dtype.to_real(), device=ys.device)
            rows[j] = rows[j] + slopes[g] * moved
        return torch.stack(rows)


class _Repeated(torch.autograd.Function):
    """ys at the distinct times -> ys at every entry of t, differentiated in t as repeat_outputs says."""

    @staticmethod
    def forward(ctx: Any, call: _Repeats, ys: Tensor, t: Tensor, *params: Tensor) -> Tensor:
        del params  # inputs for double backward only
        ctx.save_for_backward(ys, t)
        ctx.call = call
        return call.repeated.expand(ys)

    @staticmethod
    @untraced
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_ys,) = grad_outputs
        call: _Repeats = ctx.call
        ys, t = ctx.saved_tensors
        f = call.trajectory.field.for_another_pass()
        if torch.is_grad_enabled():
            gate = Gate.State()
            inputs = (Gate.apply(gate, ys), Gate.apply(gate, t))
            with f.behind(gate) as leaves:
                moving = call.moving(f, *inputs)
                bars = f.pull((moving,), (*inputs, *leaves), (grad_ys,), create_graph=True)
            gate.open = True
            f.vjps += f.calls_on_graph
        else:
            with f.forward_state.reinstated():
                entries = call.time_bars(f, ys, grad_ys)
                bars = (call.repeated.fold(grad_ys), stack_times(entries, t), *(None for _ in f.params))
        call.trajectory.stats.f_calls_backward += f.f_calls
        call.trajectory.stats.vjps_backward += f.vjps
        return None, *bars
