"""The gradient through the time of an event, by the implicit function theorem."""

from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.errors import SolverError, UnsupportedCombination
from symplectic_adjoint.solve.event_jump import decided_by_time, jumps
from symplectic_adjoint.solve.events import Crossing
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.transpose import inner


def through_event_time(trajectory: Trajectory, ys: Tensor) -> tuple[Tensor, Tensor]:
    """Return (tau, ys), both differentiable through the time tau of the event, which is NaN if there was none.

    Let g(tau, y(tau)) = 0 and y' be the slope of the dense output. If y and g change by dy and dg at fixed tau, then
    dtau = -dg / (g_t + g_y . y') and y(tau) changes by dy + y' dtau. Where g jumps, or the denominator is 0 or not
    finite, there is no dtau, and a backward pass in which dL/dtau is not zero raises SolverError. If time alone decides
    the event, ys is at a fixed time, and only a gradient through tau itself is refused.
    """
    crossing = trajectory.crossing
    if crossing is None:
        return torch.tensor(torch.nan, dtype=torch.float64, device="cpu"), ys
    tau = torch.tensor(crossing.t, dtype=torch.float64, device="cpu")
    if not torch.is_grad_enabled():
        return tau, ys
    y = ys[-1]
    value = crossing.event.crossing(crossing.t, y)
    if not value.requires_grad and not y.requires_grad:
        return tau, ys
    at = y.detach()
    rate = _rate(crossing, at)
    refusal = _refusal(crossing, at, rate)
    if refusal is not None and decided_by_time(crossing, at):
        return _DifferentiableEvent.apply(tau, y, value, None, rate, refusal)[0], ys
    tau, y = _DifferentiableEvent.apply(tau, y, value, crossing.slope, rate, refusal)
    return tau, torch.cat([ys[:-1], y.unsqueeze(0)])


def _rate(crossing: Crossing, y: Tensor) -> Tensor:
    """Return g_t + g_y . y', the rate of change of g along the solution, as far as autograd knows it."""
    with torch.enable_grad():
        time = torch.tensor(crossing.t, dtype=torch.float64, device="cpu", requires_grad=True)
        state = y.clone().requires_grad_()
        value = crossing.event.crossing(time, state)
        bars = torch.autograd.grad(value, (time, state), allow_unused=True) if value.requires_grad else (None, None)
    rate = torch.zeros((), dtype=torch.float64, device="cpu")
    if bars[0] is not None:
        rate = rate + bars[0].cpu()
    if bars[1] is not None:
        rate = rate + inner(bars[1], crossing.slope).cpu()
    return rate


def _refusal(crossing: Crossing, y: Tensor, rate: Tensor) -> str | None:
    """Return why the time of the event has no derivative, or None if it has one."""
    if jumps(crossing, y):
        found = f"event_fn jumps across zero at t = {crossing.t:.9g}"
    elif rate == 0.0 or not bool(rate.isfinite()):
        found = (
            f"event_fn touches zero at t = {crossing.t:.9g} and does not cross it, as far as autograd knows its "
            "derivative"
        )
    else:
        return None
    return (
        f"{found}: the time of such an event has no gradient. Give event_fn a value that passes through zero "
        "(y - height, not y > height), use event_t.detach() as a constant, or, for ys at a fixed time, solve again to "
        "event_t.detach() without event_fn"
    )


class _DifferentiableEvent(torch.autograd.Function):
    """The identity on (tau, y), whose gradient includes the dependence of tau on the inputs of the solve.

    slope: dy/dt, or None if tau does not depend on them. refusal: the error of a backward pass that needs dtau.
    """

    @staticmethod
    def forward(
        tau: Tensor, y: Tensor, value: Tensor, slope: Tensor | None, rate: Tensor, refusal: str | None
    ) -> tuple[Tensor, Tensor]:
        del value, slope, rate, refusal
        return tau.clone(), y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        del output
        _, _, value, slope, rate, ctx.refusal = inputs
        ctx.save_for_backward(slope, rate)
        ctx.like = value.dtype, value.device

    @staticmethod
    @untraced
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_tau, grad_y = grads
        slope, rate = ctx.saved_tensors
        moved = grad_tau if slope is None else grad_tau + inner(grad_y, slope).to(grad_tau)
        if ctx.refusal is not None:
            if bool(moved != 0.0):
                raise SolverError(ctx.refusal)
            return None, grad_y, None, None, None, None
        if torch.is_grad_enabled():
            raise UnsupportedCombination(
                "create_graph=True (double backward) does not go through the time of an event: detach() it, or give "
                "the time in t"
            )
        dtype, device = ctx.like
        return None, grad_y, (-moved / rate).to(dtype=dtype, device=device), None, None, None
