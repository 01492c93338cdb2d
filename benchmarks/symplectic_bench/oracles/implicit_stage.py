"""The stage of an implicit method, on the graph: Newton's method, and the implicit function theorem."""

from collections.abc import Callable
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


def _jacobian(f: Callable[[Any, Tensor], Tensor], t: Any, y: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda x: f(t, x), y, vectorize=True)
    return found.reshape(y.numel(), y.numel())
