"""Check a gradient of the caller's own model."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint.arguments import Arguments, MethodKeywords, build_problem, shows_keywords
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.diagnostics.gradient_run import replayed, weights_like
from symplectic_adjoint.field.graph import find_unknown_leaves
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.trajectory import Trajectory

TAYLOR_STEPS = [2.0**-k for k in range(4, 16)]
"""Values of eps in the Taylor test."""


@dataclass(frozen=True)
class GradientCheck:
    """The result of check_gradient. str() is a report.

    errors: by name of the input, the relative error of its gradient against autograd on the recorded grid. lost: the
    tensors that func uses and that require a gradient but did not get one. repeats: whether a second pass over the
    steps gave the same outputs. taylor_order: the power of eps with which (L(x + eps d) - L(x - eps d)) / 2 - eps g.d
    vanishes, 3 for a correct gradient and 1 for a wrong one; None if the loss is quadratic along d up to rounding.
    tolerance: the largest error that passes.
    """

    errors: Mapping[str, float]
    lost: Sequence[str]
    repeats: bool
    taylor_order: float | None
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the gradient passes every check."""
        order = 3.0 if self.taylor_order is None else self.taylor_order
        worst = max(self.errors.values(), default=0.0)
        return worst <= self.tolerance and not self.lost and self.repeats and order > 2.5

    def __str__(self) -> str:
        lines = [f"{name:<32} {error:9.2e}" for name, error in self.errors.items()]
        lines += [f"lost: {text}" for text in self.lost]
        if not self.repeats:
            lines.append("func returned other values in a second pass over the steps")
        order = "loss is quadratic here" if self.taylor_order is None else f"{self.taylor_order:.2f} (3 is correct)"
        verdict = "ok" if self.ok else "NOT ok"
        head = f"gradient check: {verdict}; errors up to {self.tolerance:g} pass"
        return "\n".join([head, *lines, f"Taylor order {order}"])


@shows_keywords(MethodKeywords)
def check_gradient(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    gradient: str | Strategy | None = None,
    **keywords: Unpack[MethodKeywords],
) -> GradientCheck:
    """Compare a gradient with plain autograd through the recorded steps, and with finite differences of the loss.

    Takes odeint's rtol, atol, method, options and params, and raises odeint's errors. Needs the memory of
    gradient="backprop". The loss is a weighted sum of all outputs and their squares, with fixed weights. Finds errors
    that no check during a solve can find: a tensor that func uses only sometimes, noise from func's own generator, a
    value that func changes from call to call. A repeated time is checked once.
    Leaves the caller's parameters and their .grad unchanged.
    """
    given = Arguments.of("check_gradient", keywords, func=func, y0=y0, t=t, gradient=gradient)
    problem, strategy, packed = build_problem(given.with_constant_times())
    distinct = t if problem.repeated is None else problem.repeated.distinct(t)
    problem = replace(problem, repeated=None)
    times = distinct.detach().clone().requires_grad_()
    y = packed.detach().clone().requires_grad_()
    parameters = problem.parameters.trainable
    inputs = {"y0": y, "t": times, **named_parameters(problem, parameters)}
    with torch.enable_grad():
        ys, trajectory = run(problem, strategy, y, times)
        weights = weights_like(ys)
        got = torch.autograd.grad(_loss(ys, weights), list(inputs.values()), allow_unused=True)
        again = replayed(problem, trajectory, y, times)
        expected = torch.autograd.grad(
            _loss(again, weights), list(inputs.values()), allow_unused=True, retain_graph=True
        )
        lost = [_described(x) for x in find_unknown_leaves(again, (*parameters, y, times))]
    precision = torch.finfo(y.dtype).eps
    floor = rounding_floor(expected, y.dtype)
    return GradientCheck(
        errors={name: relative_error(a, b, floor) for name, a, b in zip(inputs, got, expected, strict=True)},
        lost=lost,
        repeats=torch.allclose(again, ys, rtol=1e3 * precision, atol=1e3 * precision),
        taylor_order=_taylor_order(problem, trajectory, list(inputs.values()), got, weights),
        tolerance=1e-12 if precision < 1e-12 else 1e-4,
    )


def named_parameters(problem: Problem, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the parameters by their name in the module, or by their index in params if they have none."""
    modules = problem.parameters.modules
    with problem.lock:
        own = {id(p): name for name, p in modules[0].named_parameters()} if modules else {}
    return {own.get(id(p), f"params[{i}]"): p for i, p in enumerate(parameters)}


def _loss(ys: Tensor, weights: Tensor) -> Tensor:
    real = torch.view_as_real(ys).sum(-1) if ys.is_complex() else ys
    return (weights * (real + 0.5 * real.square())).sum()


def rounding_floor(gradients: Sequence[Tensor | None], dtype: torch.dtype) -> float:
    """Return the norm below which a gradient is only rounding error, relative to the largest of the gradients."""
    return max((x.norm().item() for x in gradients if x is not None), default=0.0) * torch.finfo(dtype).eps * 100


def relative_error(got: Tensor | None, expected: Tensor | None, floor: float) -> float:
    """Return |got - expected| / |expected|, or 0 if both norms are within floor, the rounding error.

    A gradient that is zero has no scale of its own. None counts as zero.
    """
    if got is None or expected is None:
        other = got if expected is None else expected
        return 0.0 if other is None or not bool(other.any()) else math.inf
    error, scale = (got - expected).norm().item(), expected.norm().item()
    return 0.0 if error <= floor and scale <= floor else error / scale if scale > 0.0 else math.inf


@contextmanager
def _moved(leaves: Sequence[Tensor], directions: Sequence[Tensor], eps: float) -> Iterator[None]:
    """Move the leaves by eps times the directions inside the block, through .data so that autograd does not see it."""
    held = [x.data for x in leaves]
    try:
        for x, d in zip(leaves, directions, strict=True):
            x.data = x.data + eps * d
        yield
    finally:
        for x, data in zip(leaves, held, strict=True):
            x.data = data


def _described(x: Tensor) -> str:
    return f"a tensor of shape {tuple(x.shape)}, {x.dtype}, that is neither a parameter of func's module nor in params"


def _taylor_order(
    problem: Problem,
    trajectory: Trajectory,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    weights: Tensor,
) -> float | None:
    """Return the order in eps of the remainder, along one direction in all inputs that are leaves.

    With symmetric differences the remainder of a correct gradient is of third order, and so small that a relative error
    of 1e-6 in the gradient stands out from it before rounding does.
    """
    pairs = [(x, g) for x, g in zip(inputs, gradients, strict=True) if x.is_leaf and g is not None and x.numel()]
    scale = [max(x.detach().abs().max().item(), 1e-3) * 0.1 for x, _ in pairs]
    directions = [weights_like(x).to(x.dtype) * size for (x, _), size in zip(pairs, scale, strict=True)]
    slope = sum((g.conj() * d).sum().real.item() for (_, g), d in zip(pairs, directions, strict=True))
    leaves = [x for x, _ in pairs]

    def loss_at(eps: float) -> float:
        with problem.lock, torch.no_grad(), _moved(leaves, directions, eps):
            return _loss(replayed(problem, trajectory, inputs[0], inputs[1]), weights).item()

    rounding = 1e3 * torch.finfo(inputs[0].dtype).eps * max(abs(loss_at(0.0)), 1e-300)
    remainders = [(eps, abs((loss_at(eps) - loss_at(-eps)) / 2 - eps * slope)) for eps in TAYLOR_STEPS]
    usable = [(math.log(eps), math.log(r)) for eps, r in remainders if math.isfinite(r) and r > rounding][-4:]
    if len(usable) < 2:
        return None
    (x0, y0), (x1, y1) = usable[0], usable[-1]
    return (y1 - y0) / (x1 - x0)
