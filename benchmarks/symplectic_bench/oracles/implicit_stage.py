"""The stages of an implicit method, on the graph: Newton's method, and the implicit function theorem."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MOST_NUMBERS = 512
"""The most numbers in a state whose stages are solved for with a dense Jacobian."""
MOST_ITERATIONS = 50


def solved_stage(f: Callable[[Any, Tensor], Tensor], t: Any, y: Tensor, hg: Any) -> Tensor:
    """Return k = f(t, y + hg k), with the graph of y, t, hg and what f depends on.

    The last of Newton's iterations is on the graph, with a constant Jacobian. k solves the equation, so that its
    derivative is that of the implicit function.
    """
    step, n = float(hg), y.numel()
    with torch.no_grad():
        k = torch.zeros_like(y)
        M = torch.eye(n, dtype=y.dtype)
        before = float("inf")
        for _ in range(MOST_ITERATIONS):
            M = torch.eye(n, dtype=y.dtype) - step * _jacobian(f, t, y + step * k)
            change = torch.linalg.solve(M, (f(t, y + step * k) - k).reshape(n)).view_as(y)
            k, size = k + change, float(change.abs().max())
            if size == 0.0 or (size >= 0.5 * before and step * size <= 1e-12 * float((y + step * k).abs().max())):
                break
            before = size
        else:
            raise ArithmeticError(f"the stage at t = {float(t):.9g} was not solved for in {MOST_ITERATIONS} iterations")
    return k + torch.linalg.solve(M, (f(t, y + hg * k) - k).reshape(n)).view_as(y)


def solved_stages(
    f: Callable[[Any, Tensor], Tensor], times: Sequence[Any], y: Tensor, h: Any, A: Sequence[Sequence[Any]]
) -> list[Tensor]:
    """Return all k_i = f(t_i, y + h sum_j a_ij k_j) of a fully implicit method, on the graph as solved_stage does."""
    weights = torch.tensor([[float(a) for a in row] for row in A], dtype=y.dtype)

    def all_stages(_: Any, mixed: Tensor) -> Tensor:  # mixed_i = y + h sum_j a_ij k_j
        return torch.stack([f(t, state) for t, state in zip(times, mixed, strict=True)])

    step, n = float(h), y.numel()
    M, k = torch.eye(len(A) * n, dtype=y.dtype), torch.zeros(len(A), *y.shape, dtype=y.dtype)

    def states(k: Tensor, h: Any) -> Tensor:
        return y + h * torch.einsum("ij,j...->i...", weights, k)

    with torch.no_grad():
        before = float("inf")
        for _ in range(MOST_ITERATIONS):
            J = _jacobian(all_stages, None, states(k, step)).reshape(len(A) * n, len(A), n)
            M = torch.eye(len(A) * n, dtype=y.dtype) - step * torch.einsum("pin,ij->pjn", J, weights).reshape(M.shape)
            change = torch.linalg.solve(M, (all_stages(None, states(k, step)) - k).reshape(-1)).view_as(k)
            k, size = k + change, float(change.abs().max())
            if size == 0.0 or (size >= 0.5 * before and step * size <= 1e-12 * float(states(k, step).abs().max())):
                break
            before = size
        else:
            raise ArithmeticError(
                f"the stages from t = {float(times[0]):.9g} were not solved for in {MOST_ITERATIONS} iterations"
            )
    residual = (all_stages(None, states(k, h)) - k).reshape(-1)
    return list(k + torch.linalg.solve(M, residual).view_as(k))


def _jacobian(f: Callable[[Any, Tensor], Tensor], t: Any, y: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda x: f(t, x), y, vectorize=True)
    return found.reshape(y.numel(), y.numel())
