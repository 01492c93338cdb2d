"""A continuous normalizing flow on real data: density estimation with Hutchinson's trace estimator.

Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, FFJORD: Free-form Continuous Dynamics for Scalable Reversible
Generative Models, ICLR 2019.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.mlp import dense
from symplectic_bench.problems.problem import Family, Loss, Problem, Source, output_times

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
}


class ConcatSquash(nn.Module):
    """A linear layer gated and shifted by the time: (W x + b) sigmoid(t g + g_0) + t u."""

    def __init__(self, linear: nn.Linear, gate: Tensor, gate_bias: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.gate, self.gate_bias, self.shift = (
            nn.Parameter(gate),
            nn.Parameter(gate_bias),
            nn.Parameter(shift),
        )

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) * torch.sigmoid(t * self.gate + self.gate_bias) + t * self.shift


class Velocity(nn.Module):
    """The velocity f(t, z), (batch, dim): gated layers with a nonlinearity between them."""

    def __init__(self, layers: Sequence[ConcatSquash], nonlinearity: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.nonlinearity = nonlinearity

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        first, *others = self.layers
        z = first(t, z)
        for layer in others:
            z = layer(t, NONLINEARITIES[self.nonlinearity](z))
        return z


class Transport(nn.Module):
    """The field z' = f(t, z), l' = -tr(df/dz). The state, (batch, dim + 1), is z with l in the last column.

    With noise e, (batch, dim), the trace is estimated by e^T (df/dz) e, which is unbiased if E[e e^T] = 1 (Hutchinson).
    The noise is drawn once, because the field must not change during a solve and its recomputation. Without noise the
    trace is exact, at the cost of dim vector-Jacobian products instead of one.
    """

    noise: Tensor | None

    def __init__(self, velocity: nn.Module, noise: Tensor | None) -> None:
        super().__init__()
        self.velocity = velocity
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        # The trace is itself a derivative, so it needs a graph of f under no_grad too.
        with torch.enable_grad():
            z = state[:, :-1]
            if not (differentiable and z.requires_grad):
                z = z.detach().requires_grad_()
            velocity = self.velocity(t, z)
            trace = self._trace(velocity, z, differentiable)
        change = torch.cat([velocity, -trace[:, None]], dim=1)
        return change if differentiable else change.detach()

    def _trace(self, velocity: Tensor, z: Tensor, differentiable: bool) -> Tensor:
        if self.noise is not None:
            (row,) = torch.autograd.grad(velocity, z, self.noise, create_graph=differentiable)
            return (row * self.noise).sum(dim=1)
        rows = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None].expand(-1, len(z), -1)
        (jacobian,) = torch.autograd.grad(velocity, z, rows, create_graph=differentiable, is_grads_batched=True)
        return jacobian.diagonal(dim1=0, dim2=2).sum(dim=1)


class NegativeLogLikelihood(Loss):
    """The mean of -log p(x) over the batch, in nats, where log p(x) = log N(z(T); 0, 1) - l(T)."""

    def forward(self, ys: Tensor) -> Tensor:
        z, change = ys[-1][:, :-1], ys[-1][:, -1]
        log_normal = -0.5 * (z.square().sum(dim=1) + z.shape[1] * math.log(2 * math.pi))
        return (change - log_normal).mean()

    @staticmethod
    def formula(ops: Arithmetic, held: Held, ys: Array) -> Array:
        del held
        z, change = ys[-1][:, :-1], ys[-1][:, -1]
        two_pi = 2 * ops.pi
        return (change.sum() + (z * z).sum() / 2) / len(z) + z.shape[1] * ops.log(two_pi) / 2


def nonlinear(ops: Arithmetic, held: Held, z: Array, dz: Array) -> tuple[Array, Array]:
    """Return the nonlinearity of z and its derivative along dz."""
    if held["nonlinearity"] == "softplus":
        return ops.softplus(z), dz * ops.sigmoid(z)
    z = ops.tanh(z)
    return z, dz * (1 - z * z)


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic, with (df/dz) e by forward differentiation through the layers."""
    velocity, dz = along(ops, theta, held, t, y[:, :-1], held["noise"])
    trace = (dz * held["noise"]).sum(axis=1, keepdims=True)
    return ops.concatenate([velocity, -trace], axis=1)


def along(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, z: Array, dz: Array) -> tuple[Array, Array]:
    """Return the velocity at z and its derivative along dz."""
    for first in range(0, len(theta), 5):
        gate, gate_bias, shift, W, b = theta[first : first + 5]
        if first:
            z, dz = nonlinear(ops, held, z, dz)
        squash = ops.sigmoid(gate * t + gate_bias)
        z, dz = (z @ W.T + b) * squash + shift * t, (dz @ W.T) * squash
    return z, dz


def concat_squash(source: Source, inputs: int, outputs: int) -> ConcatSquash:
    """Draw a layer."""
    gate, gate_bias, shift = (source.normal(outputs, std=0.5) for _ in range(3))
    return ConcatSquash(dense(source, inputs, outputs), gate, gate_bias, shift)


def draw_velocity(source: Source, dim: int, width: int, layers: int, nonlinearity: str) -> Velocity:
    """Draw a velocity in `dim` dimensions with `layers` hidden layers of `width` units."""
    widths = [dim, *[width] * layers, dim]
    return Velocity([concat_squash(source, n, m) for n, m in pairwise(widths)], nonlinearity)


def draw(
    source: Source,
    batch: int,
    *,
    data: str = "digits",
    width: int = 64,
    layers: int = 2,
    nonlinearity: str = "softplus",
    end: float = 1.0,
) -> Problem:
    """Draw `batch` rows of the table `data` and a flow with `layers` hidden layers of `width` units.

    Raise ValueError for an unknown nonlinearity.
    """
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"nonlinearity must be one of {', '.join(NONLINEARITIES)}; got {nonlinearity!r}")
    x = source.rows(data, batch)
    velocity = draw_velocity(source, x.shape[1], width, layers, nonlinearity)
    func = Transport(velocity, noise=source.normal(*x.shape))
    y0 = torch.cat([x, torch.zeros(batch, 1, dtype=torch.float64)], dim=1)
    return Problem(func, y0, output_times(end, outputs=1), NegativeLogLikelihood())


FLOW = Family("flow", draw, formula)
