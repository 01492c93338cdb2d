"""Check a gradient of the caller's own model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import Arguments, MethodKeywords, build_problem, shows_keywords
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.recomputed_verdict import eps_of
from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.diagnostics.gradient_run import replayed, weights_like
from symplectic_adjoint.diagnostics.halved_steps import ADVICE, halved, largest_change, tolerance_of
from symplectic_adjoint.errors import FunctionChanged
from symplectic_adjoint.field.graph import find_unknown_leaves
from symplectic_adjoint.field.precision import precisions_of
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.trajectory import Trajectory

TAYLOR_STEPS = [2.0**-k for k in range(4, 16)]
"""Values of eps in the Taylor test."""


@dataclass(frozen=True)
class GradientCheck:
    """The result of check_gradient. str() is a report.

    errors: by name of the input, the relative error of its gradient against autograd on the recorded grid. lost: the
    tensors that func uses and that require a gradient but did not get one. changed: the FunctionChanged that the
    backward pass raised, None if it raised none. repeats: whether a second pass over the steps gave the same outputs.
    taylor_order: the power of eps with which (L(x + eps d) - L(x - eps d)) / 2 - eps g.d
    vanishes, 3 for a correct gradient and 1 for a wrong one; None if the loss is quadratic along d up to rounding,
    as it always is in half precision.
    tolerance: the largest error that passes.

    step_errors: by name, how much the gradient changes relatively if every step is halved: an estimate of its distance
    from the gradient of the ODE. A gradient below the tolerance of step control, relative to the largest, counts as
    zero. step_limit: the largest of them that passes, except that of t, the slope of a dense output of lower order;
    None on a fixed grid, which has no tolerance.
    """

    errors: Mapping[str, float]
    lost: Sequence[str]
    repeats: bool
    taylor_order: float | None
    tolerance: float
    step_errors: Mapping[str, float]
    step_limit: float | None
    changed: FunctionChanged | None = None

    @property
    def steps_suffice(self) -> bool:
        """Whether the steps are short enough for the gradient of the ODE, as far as a solve of half steps shows."""
        worst = max((error for name, error in self.step_errors.items() if name != "t"), default=0.0)
        return self.step_limit is None or worst <= self.step_limit

    @property
    def ok(self) -> bool:
        """Whether the gradient passes every check."""
        order = 3.0 if self.taylor_order is None else self.taylor_order
        worst = max(self.errors.values(), default=0.0)
        is_gradient = worst <= self.tolerance and not self.lost and self.repeats and order > 2.5
        return is_gradient and self.changed is None and self.steps_suffice

    def __str__(self) -> str:
        lines = [f"{'':<32} {'error':>9} {'if steps are halved':>20}"]
        lines += [f"{name:<32} {error:9.2e} {self.step_errors[name]:20.2e}" for name, error in self.errors.items()]
        lines += [f"lost: {text}" for text in self.lost]
        if self.changed is not None:
            lines.append(f"changed: {self.changed}")
        if not self.repeats:
            lines.append("func returned other values in a second pass over the steps")
        if not self.steps_suffice:
            lines.append(ADVICE)
        order = "unknown, within rounding" if self.taylor_order is None else f"{self.taylor_order:.2f} (3 is correct)"
        verdict = "ok" if self.ok else "NOT ok"
        steps = "" if self.step_limit is None else f", changes up to {self.step_limit:.2g} if steps are halved"
        head = f"gradient check: {verdict}; errors up to {self.tolerance:g} pass{steps}"
        return "\n".join([head, *lines, f"Taylor order {order}"])


@untraced
@shows_keywords(MethodKeywords)
def check_gradient(
    func: FuncOrPair,
    y0: Any,
    t: Tensor,
    *,
    gradient: str | Strategy | None = None,
    **keywords: Unpack[MethodKeywords],
) -> GradientCheck:
    """Compare a gradient with plain autograd through the recorded steps, and with finite differences of the loss.

    Then halve every step, to estimate how far the gradient is from that of the ODE. Step control bounds the error of y:
    where a term of func is zero, y may be exact on steps that are useless for the gradient.
    Takes odeint's rtol, atol, method, options and params, and raises odeint's errors. Needs the memory of
    gradient="backprop" with twice the steps. The loss is a weighted sum of all outputs and their squares, with fixed
    weights. Finds errors that no check during a solve can find, such as a tensor that func uses only sometimes, and
    reports what a backward pass refuses with FunctionChanged. A repeated time is checked once.
    Leaves the caller's parameters and their .grad unchanged.
    """
    given = Arguments.of("check_gradient", keywords, func=func, y0=y0, t=t, gradient=gradient)
    problem, strategy, packed = build_problem(given.with_constant_times())
    distinct = t if problem.repeated is None else problem.repeated.distinct(t)
    problem = replace(problem, repeated=None)
    times = distinct.detach().clone().requires_grad_()
    y = packed.detach().clone().requires_grad_()
    with torch.enable_grad():
        ys, trajectory = run(problem, strategy, y, times)
        parameters = trajectory.field.params
        inputs = {"y0": y, "t": times, **named_parameters(problem, parameters)}
        weights = weights_like(ys)
        changed = None
        try:
            got = torch.autograd.grad(_loss(ys, weights), list(inputs.values()), allow_unused=True)
        except FunctionChanged as error:
            changed = error
            ys, trajectory = run(problem, replace(strategy, check=False), y, times)
            got = torch.autograd.grad(_loss(ys, weights), list(inputs.values()), allow_unused=True)
        again = replayed(problem, trajectory, y, times)
        loss = _loss(again, weights)
        expected = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, retain_graph=True)
        seen = set[torch.dtype]()
        unknown = find_unknown_leaves(again, (*parameters, y, times), lambda node: seen.update(precisions_of(node)))
        lost = [_described(problem, x) for x in unknown]
        again, loss = again.detach(), None  # its graph is freed before the next one is built
        finer = replayed(problem, replace(trajectory, plans=list(halved(trajectory.plans))), y, times)
        fine = torch.autograd.grad(_loss(finer, weights), list(inputs.values()), allow_unused=True)
    precision = max(eps_of(problem, trajectory.field), *(torch.finfo(x).eps for x in seen))
    ys, finer = ys.detach(), finer.detach()
    allowed, tolerance = tolerance_of(problem, ys, precision), tolerance_in(precision)
    spread = min(1e3 * precision, tolerance)
    return GradientCheck(
        errors=_errors(inputs, got, expected, rounding_floor(expected, precision)),
        lost=lost,
        repeats=torch.allclose(again, ys, rtol=spread, atol=spread),
        taylor_order=_taylor_order(problem, trajectory, list(inputs.values()), got, weights, precision),
        tolerance=tolerance,
        step_errors=_errors(inputs, got, fine, max(rounding_floor(fine, precision), allowed * largest_norm(fine))),
        step_limit=largest_change(allowed, relative_error(ys, finer, 0.0)) if allowed > 0.0 else None,
        changed=changed,
    )


def _errors(
    names: Iterable[str], got: Sequence[Tensor | None], expected: Sequence[Tensor | None], floor: float
) -> dict[str, float]:
    return {name: relative_error(a, b, floor) for name, a, b in zip(names, got, expected, strict=True)}


def named_parameters(problem: Problem, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the parameters by their name in the module, or by their index in params if they have none."""
    modules = problem.parameters.modules
    with problem.lock:
        own = {id(p): name for name, p in modules[0].named_parameters()} if modules else {}
        names = [own.get(id(p)) or problem.reach.name_of(p) or f"params[{i}]" for i, p in enumerate(parameters)]
    return dict(zip(names, parameters, strict=True))


def _loss(ys: Tensor, weights: Tensor) -> Tensor:
    real = torch.view_as_real(ys).sum(-1) if ys.is_complex() else ys
    return (weights * (real + 0.5 * real.square())).sum()


def tolerance_in(precision: float) -> float:
    """Return the largest error of a gradient that passes, if f computes in this precision.

    In half precision, where autograd's own gradients differ by a few eps, it is more of them.
    """
    return 1e-12 if precision < 1e-12 else max(1e-4, 8.0 * precision)


def rounding_floor(gradients: Sequence[Tensor | None], precision: float) -> float:
    """Return the norm below which a gradient is only rounding error, relative to the largest of the gradients."""
    return largest_norm(gradients) * min(100.0 * precision, tolerance_in(precision))


def largest_norm(gradients: Sequence[Tensor | None]) -> float:
    """Return the largest of the gradients' norms."""
    return max((x.norm().item() for x in gradients if x is not None), default=0.0)


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


def _described(problem: Problem, x: Tensor) -> str:
    name = problem.reach.name_of(x)
    known = "" if name is None else f"{name}, "
    return f"{known}a tensor of shape {tuple(x.shape)}, {x.dtype}, that was not known when the solve began"


def _taylor_order(
    problem: Problem,
    trajectory: Trajectory,
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    weights: Tensor,
    precision: float,
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
            problem.lock.mark_replaced()
            return _loss(replayed(problem, trajectory, inputs[0], inputs[1]), weights).item()

    rounding = 1e3 * precision * max(abs(loss_at(0.0)), 1e-300)
    remainders = [(eps, abs((loss_at(eps) - loss_at(-eps)) / 2 - eps * slope)) for eps in TAYLOR_STEPS]
    usable = [(math.log(eps), math.log(r)) for eps, r in remainders if math.isfinite(r) and r > rounding][-4:]
    if len(usable) < 2:
        return None
    (x0, y0), (x1, y1) = usable[0], usable[-1]
    return (y1 - y0) / (x1 - x0)
