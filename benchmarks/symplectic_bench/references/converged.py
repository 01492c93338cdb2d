"""References by self-convergence of the library, for problems too large for the other methods.

The problem is solved with dopri8 in float64 at a tight tolerance, and again with every step halved. The reference is
Richardson's extrapolation of the two gradients. Its error bar is its distance from the first gradient, which is
generous: about the error of the first solve, not that of the extrapolation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint import Grid, odeint, solve
from symplectic_bench.problems import Problem, in_turn
from symplectic_bench.references.reference import Reference

SOURCE = "self-convergence"

TOLERANCE = 1e-13

ORDER = 8


def converged_reference(problem: Problem, device: str = "cpu") -> Reference:
    """Return the extrapolated reference, computed on this device."""
    problem, t = replace(problem.to(torch.float64, device), moving_t=None), problem.t.detach().clone().requires_grad_()
    options = {"jump_t": torch.tensor(problem.jumps, dtype=torch.float64)} if problem.jumps else {}
    how: dict[str, Any] = {"method": "dopri8", "gradient": "symplectic", "params": problem.unlisted or None}
    halved: list[Tensor] = []

    def first(part: Problem) -> Tensor:
        solution = solve(part.func, part.y0, t, rtol=TOLERANCE, atol=TOLERANCE, options=options, **how)
        halved.append(_halved(solution.grid, problem.t))
        return solution.ys

    def second(part: Problem) -> Tensor:
        return odeint(part.func, part.y0, problem.t, options={**options, "grid_points": halved.pop(0)}, **how)

    _, coarse = _gradient(problem, in_turn(problem, first))
    by_times = torch.zeros_like(t) if t.grad is None else t.grad
    ys = in_turn(problem, second)
    loss, fine = _gradient(problem, ys)
    extrapolated = [b + (b - a) / (2**ORDER - 1) for a, b in zip(coarse, fine, strict=True)]
    extrapolated = [x.cpu() for x in extrapolated]
    nothing = [torch.zeros_like(x) for x in extrapolated]
    found = Reference(SOURCE, ys[-1].detach().cpu(), loss, extrapolated, nothing, by_times, bar=0.0)
    return Reference(**{**vars(found), "bar": found.error_of(coarse)})


def _halved(grid: Grid, t: Tensor) -> Tensor:
    """Return the ends and the midpoints of the grid's steps, in the order of t."""
    points = torch.cat([grid.t, t[-1:]])
    halved = torch.cat([points, (points[1:] + points[:-1]) / 2]).sort().values
    return halved if t[-1] >= t[0] else halved.flip(0)


def _gradient(problem: Problem, ys: Tensor) -> tuple[float, Sequence[Tensor]]:
    problem.clear_gradients()
    loss = problem.loss(ys)
    loss.backward()
    return float(loss.detach()), problem.gradient()
