"""The gradient through the time of an event, by the implicit function theorem."""

from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.errors import SolverError, UnsupportedCombination
from symplectic_adjoint.solve.events import Crossing
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.transpose import inner


def through_event_time(trajectory: Trajectory, ys: Tensor) -> tuple[Tensor, Tensor]:
    """Return (tau, ys), both differentiable through the time tau of the event, which is NaN if there was none.

    Let g(tau, y(tau)) = 0 and y' be the slope of the dense output. If y and g change by dy and dg at fixed tau, then
    dtau = -dg / (g_t + g_y . y') and y(tau) changes by dy + y' dtau. Raises SolverError if the denominator is 0.
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
    rate = _rate(crossing, y)
    tau, y = _DifferentiableEvent.apply(tau, y, value, crossing.slope, rate)
    return tau, torch.cat([ys[:-1], y.unsqueeze(0)])


def _rate(crossing: Crossing, y: Tensor) -> Tensor:
    """Return g_t + g_y . y', the rate of change of g along the solution."""
    with torch.enable_grad():
        time = torch.tensor(crossing.t, dtype=torch.float64, device="cpu", requires_grad=True)
        state = y.detach().requires_grad_()
        value = crossing.event.crossing(time, state)
        bars = torch.autograd.grad(value, (time, state), allow_unused=True) if value.requires_grad else (None, None)
    rate = torch.zeros((), dtype=torch.float64, device="cpu")
    if bars[0] is not None:
        rate = rate + bars[0].cpu()
    if bars[1] is not None:
        rate = rate + inner(bars[1], crossing.slope).cpu()
    if rate == 0.0:
        raise SolverError(
            f"event_fn touches zero at t = {crossing.t:.9g} and does not cross it: the time of such an event has no "
            "gradient"
        )
    return rate


class _DifferentiableEvent(torch.autograd.Function):
    """The identity on (tau, y), whose gradient includes the dependence of tau on the inputs of the solve."""

    @staticmethod
    def forward(tau: Tensor, y: Tensor, value: Tensor, slope: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        del value, slope, rate
        return tau.clone(), y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        del output
        _, _, value, slope, rate = inputs
        ctx.save_for_backward(slope, rate)
        ctx.like = value.dtype, value.device

    @staticmethod
    @untraced
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise UnsupportedCombination(
                "create_graph=True (double backward) does not go through the time of an event: detach() it, or give "
                "the time in t"
            )
        grad_tau, grad_y = grads
        slope, rate = ctx.saved_tensors
        dtype, device = ctx.like
        moved = grad_tau + inner(grad_y, slope).to(grad_tau)
        return None, grad_y, (-moved / rate).to(dtype=dtype, device=device), None, None
