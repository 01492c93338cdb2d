"""References by SciPy's implicit Runge-Kutta method Radau, for stiff problems that explicit series do not reach.

The problem is solved with its variational equations, which give dy(t)/dy0 and dy(t)/dtheta, at a tight tolerance and
at one ten times as large. The error bar is the distance of the two gradients, about the error of the second, and the
tolerance on top, since rounding errors of the two may be alike.

Hairer and Wanner, Solving Ordinary Differential Equations II, 1996, section IV.8.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.problems import Problem
from symplectic_bench.problems.pieces import Piece, pieces
from symplectic_bench.references.reference import Reference

SOURCE = "Radau"

TOLERANCE = 1e-12

CHECK_TOLERANCE = 1e-11

MAX_VARIATIONS = 2_000
"""The largest number of derivatives dy/d(y0, theta), over all samples."""

STIFF = 3_000.0
"""The fastest rate at the start, times the length of time, beyond which explicit methods are not tried."""


def is_stiff(problem: Problem) -> bool:
    """Return whether the problem is a single field, small enough for this and stiff at its start."""
    inputs = problem.y0.numel() + sum(p.numel() for p in problem.parameters)
    if problem.components > 1 or problem.moving_t is not None or problem.y0.numel() * inputs > MAX_VARIATIONS:
        return False
    _, by_y, _ = _linearised(problem, float(problem.t[0]), problem.y0.detach().numpy().ravel())
    fastest = np.abs(np.linalg.eigvals(by_y)).max()
    return bool(fastest * float((problem.t[-1] - problem.t[0]).abs()) > STIFF)


def radau_reference(problem: Problem) -> Reference:
    """Return the reference. problem is in float64 on the CPU. Raise ArithmeticError if a solve fails."""
    ys, loss, gradient, by_times = _solved(problem, TOLERANCE)
    _, _, checked, _ = _solved(problem, CHECK_TOLERANCE)
    nothing = [torch.zeros_like(x) for x in gradient]
    found = Reference(SOURCE, ys[-1], loss, gradient, nothing, by_times, bar=0.0)
    return Reference(**{**vars(found), "bar": found.error_of(checked) + TOLERANCE})


def _solved(problem: Problem, tolerance: float) -> tuple[Tensor, float, list[Tensor], Tensor]:
    """Return ys, the loss, and its gradients with respect to the inputs and to the times."""
    moments = list(_moments(problem, tolerance))
    ys = torch.from_numpy(np.stack([y for y, _ in moments])).reshape(len(moments), *problem.y0.shape).requires_grad_()
    loss = problem.loss(ys)
    (mu,) = torch.autograd.grad(loss, ys)
    whole = sum(m @ variations for m, (_, variations) in zip(mu.flatten(1).numpy(), moments, strict=True))
    sizes = [x.numel() for x in problem.inputs]
    parts = torch.from_numpy(np.asarray(whole)).split(sizes)
    gradient = [part.reshape(x.shape).clone() for part, x in zip(parts, problem.inputs, strict=True)]
    with torch.no_grad():
        slopes = torch.stack([problem.f(t, y) for t, y in zip(problem.t.tolist(), ys, strict=True)])
    pull = torch.cat([(mu[0] - gradient[0])[None], mu[1:]])
    return ys.detach(), float(loss.detach()), gradient, (pull * slopes).flatten(1).sum(dim=1)


def _moments(problem: Problem, tolerance: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield y (n,) and dy/d(y0, theta) (n, inputs) at every time, n the size of the batch's state."""
    from scipy.integrate import solve_ivp

    n, inputs = problem.y0.numel(), sum(x.numel() for x in problem.inputs)
    state = np.hstack([problem.y0.detach().numpy().reshape(n, 1), np.eye(n, inputs)])
    yield state[:, 0], state[:, 1:]
    for piece in pieces(problem):
        slopes, jacobian = _variational(problem, inputs, piece)
        how: dict[str, Any] = {"method": "Radau", "rtol": tolerance, "atol": tolerance, "jac": jacobian}
        found = solve_ivp(slopes, (piece.start, piece.end), state.T.ravel(), t_eval=[piece.end], **how)
        if not found.success:
            raise ArithmeticError(f"Radau failed between t = {piece.start:g} and {piece.end:g}: {found.message}")
        state = found.y[:, -1].reshape(1 + inputs, n).T
        if piece.output:
            yield state[:, 0], state[:, 1:]


def _variational(problem: Problem, inputs: int, piece: Piece) -> tuple[Any, Any]:
    """Return the right-hand side of y and dy/d(y0, theta), column by column, and an approximation of its Jacobian.

    Every column has the Jacobian df/dy. The influence of y on the other columns is left out: Newton's iteration finds
    y first, and then the others.
    """
    from scipy.sparse import block_diag

    n = problem.y0.numel()

    def slopes(t: float, flat: np.ndarray) -> np.ndarray:
        state = flat.reshape(1 + inputs, n)
        value, by_y, by_theta = _linearised(problem, piece.inside(t), state[0])
        moved = state[1:] @ by_y.T
        moved[n:] += by_theta.T
        return np.concatenate([value, moved.ravel()])

    def jacobian(t: float, flat: np.ndarray) -> Any:
        _, by_y, _ = _linearised(problem, piece.inside(t), flat[:n])
        return block_diag([by_y] * (1 + inputs), format="csc")

    return slopes, jacobian


def _linearised(problem: Problem, t: float, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return f (n,), df/dy (n, n) and df/dtheta (n, parameters)."""
    at, n = torch.from_numpy(y).reshape(problem.y0.shape).clone().requires_grad_(), y.size
    value = problem.f(t, at)
    rows = torch.eye(n, dtype=value.dtype).reshape(n, *value.shape)
    inputs = (at, *problem.parameters)
    slopes = torch.autograd.grad(value, inputs, rows, is_grads_batched=True, materialize_grads=True)
    by_y, *by_theta = (x.reshape(n, -1).numpy() for x in slopes)
    return value.detach().numpy().ravel(), by_y, np.hstack([np.zeros((n, 0)), *by_theta])
