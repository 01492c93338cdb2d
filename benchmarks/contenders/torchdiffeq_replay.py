"""torchdiffeq's forward solve once more, on the steps that it took, by plain operations that autograd follows.

It differs from ours in what it does at the end of a step: an adaptive solve steps over the output times and
interpolates; and its next step begins with the last stage's value, whether or not that is f at the step's end
(for adaptive_heun and fehlberg2 it is not).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.oracle import combine
from benchmarks.problems import Problem
from symplectic_adjoint import METHODS

Step = tuple[float, float]
"""Where a step starts, and its size."""


def replay_adaptive(solver: Any, steps: Sequence[Step], problem: Problem) -> Tensor:
    """ys on the recorded steps. `solver` is torchdiffeq's class, for its tableau and its midpoint weights."""
    tableau, middle = solver.tableau, solver.mid.tolist()
    nodes, rows, weights = (
        tableau.alpha.tolist(),
        [row.tolist() for row in tableau.beta],
        tableau.c_sol.tolist(),
    )
    y, waiting = problem.y0, problem.t.tolist()[1:]
    ys, slope = [y], problem.func(problem.t[0].to(y), y)
    for t, h in steps:
        k = [slope]
        for c, row in zip(nodes, rows, strict=True):
            k.append(problem.func(y.new_tensor(t + c * h), combine(y, h, row, k)))
        y_end, y_middle = combine(y, h, weights, k), combine(y, h, middle, k)
        while waiting and waiting[0] <= t + h:
            x = (waiting.pop(0) - t) / h
            ys.append(_quartic(x, h, y, k[0], y_middle, y_end, k[-1]))
        y, slope = y_end, k[-1]
    return torch.stack(ys)


def replay_fixed(method: str, steps: Sequence[Step], problem: Problem) -> Tensor:
    """ys on the recorded steps of one of our methods, with cubic outputs inside a step."""
    tableau, func = METHODS[method], problem.func
    nodes, rows, weights = (_floats(tableau.c), [_floats(row) for row in tableau.A], _floats(tableau.b))
    y, waiting, ys = problem.y0, problem.t.tolist()[1:], [problem.y0]
    for n, (t, h) in enumerate(steps):
        k: list[Tensor] = []
        for c, row in zip(nodes, rows, strict=True):
            k.append(func(y.new_tensor(t + c * h), combine(y, h, row, k)))
        y_end = combine(y, h, weights, k)
        last = n == len(steps) - 1
        while waiting and (last or waiting[0] <= t + h):
            x = (waiting.pop(0) - t) / h
            at_end = last and not waiting
            ys.append(y_end if at_end else _cubic(x, h, y, k[0], y_end, func(y.new_tensor(t + h), y_end)))
        y = y_end
    return torch.stack(ys)


def _cubic(x: float, h: float, y0: Tensor, f0: Tensor, y1: Tensor, f1: Tensor) -> Tensor:
    """The cubic with these values and slopes at both ends, at y(t + x h) (Hermite)."""
    rise = x * x * (3 - 2 * x)
    return y0 + rise * (y1 - y0) + h * (x * (1 - x) ** 2 * f0 - x * x * (1 - x) * f1)


def _quartic(x: float, h: float, y0: Tensor, f0: Tensor, y_middle: Tensor, y1: Tensor, f1: Tensor) -> Tensor:
    """The quartic that also passes through y_middle at x = 1/2: the cubic and the one bump that does not move it."""
    miss = y_middle - _cubic(0.5, h, y0, f0, y1, f1)
    return _cubic(x, h, y0, f0, y1, f1) + 16 * (x * (1 - x)) ** 2 * miss


def _floats(row: Sequence[Any]) -> list[float]:
    return [float(entry) for entry in row]
