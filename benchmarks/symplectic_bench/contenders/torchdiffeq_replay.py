"""A replay of torchdiffeq's forward solve on its recorded steps, by plain operations that autograd can follow.

It differs from our solve at the end of a step: an adaptive solve steps over the output times and interpolates, and the
next step begins with the last stage's value, even where that is not f at the step's end (adaptive_heun, fehlberg2).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from symplectic_adjoint import METHODS
from symplectic_bench.oracles.recorded_grid import Replayed, combine

Step = tuple[float, float]
"""The start of a step, and its size."""


def replay_adaptive(solver: Any, steps: Sequence[Step], problem: Replayed) -> Any:
    """Return ys on the recorded steps. `solver` is torchdiffeq's class, for its tableau and midpoint weights."""
    tableau, middle = solver.tableau, solver.mid.tolist()
    nodes, rows, weights = (
        tableau.alpha.tolist(),
        [row.tolist() for row in tableau.beta],
        tableau.c_sol.tolist(),
    )
    y, waiting = problem.y0, problem.t.tolist()[1:]
    number, ys = problem.number, [y]
    slope = problem.f(number(problem.t[0].item()), y)
    for t, h in map(partial(_numbers, number), steps):
        k = [slope]
        for c, row in zip(nodes, rows, strict=True):
            k.append(problem.f(t + c * h, combine(y, h, row, k)))
        y_end, y_middle = combine(y, h, weights, k), combine(y, h, middle, k)
        while waiting and waiting[0] <= t + h:
            x = (waiting.pop(0) - t) / h
            ys.append(_quartic(x, h, y, k[0], y_middle, y_end, k[-1]))
        y, slope = y_end, k[-1]
    return problem.stack(ys)


def replay_fixed(method: str, steps: Sequence[Step], problem: Replayed) -> Any:
    """Return ys on the recorded steps of one of our methods, with cubic outputs inside a step."""
    tableau, number = METHODS[method], problem.number
    nodes, rows, weights = (_floats(tableau.c), [_floats(row) for row in tableau.A], _floats(tableau.b))
    y, waiting, ys = problem.y0, problem.t.tolist()[1:], [problem.y0]
    for n, (t, h) in enumerate(map(partial(_numbers, number), steps)):
        k: list[Any] = []
        for c, row in zip(nodes, rows, strict=True):
            k.append(problem.f(t + c * h, combine(y, h, row, k)))
        y_end = combine(y, h, weights, k)
        last = n == len(steps) - 1
        while waiting and (last or waiting[0] <= t + h):
            x = (waiting.pop(0) - t) / h
            at_end = last and not waiting
            ys.append(y_end if at_end else _cubic(x, h, y, k[0], y_end, problem.f(t + h, y_end)))
        y = y_end
    return problem.stack(ys)


def _cubic(x: Any, h: Any, y0: Any, f0: Any, y1: Any, f1: Any) -> Any:
    """Evaluate the Hermite cubic with these values and slopes at both ends, at t + x h."""
    rise = x * x * (3 - 2 * x)
    return y0 + (y1 - y0) * rise + (f0 * (x * (1 - x) ** 2) - f1 * (x * x * (1 - x))) * h


def _quartic(x: Any, h: Any, y0: Any, f0: Any, y_middle: Any, y1: Any, f1: Any) -> Any:
    """Evaluate the quartic that also passes through y_middle at x = 1/2, at t + x h.

    It is the cubic plus a bump that is zero, with zero slope, at both ends.
    """
    miss = y_middle - _cubic(0.5, h, y0, f0, y1, f1)
    return _cubic(x, h, y0, f0, y1, f1) + miss * (16 * (x * (1 - x)) ** 2)


def _numbers(number: Callable[[float], Any], step: Step) -> tuple[Any, Any]:
    t, h = step
    return number(t), number(h)


def _floats(row: Sequence[Any]) -> list[float]:
    return [float(entry) for entry in row]
