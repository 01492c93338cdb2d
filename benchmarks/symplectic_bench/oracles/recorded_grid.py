"""The gradient of the computed solution: ordinary autograd through the recorded steps, written as in a textbook.

It shares nothing with the library's sweep except the methods' coefficients.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from symplectic_adjoint import ButcherTableau, Grid
from symplectic_bench.oracles.implicit_stage import MOST_NUMBERS, solved_stage, solved_stages
from symplectic_bench.problems import Problem

COUPLING = 0.999
"""The coupling of the library's reversible steps."""

Kind = Literal["method", "leapfrog", "coupled"]
"""The kind of steps: the method's own, or a kind that carries a second state."""

Func = Callable[[Any, Any], Any]
PairStep = Callable[[Func, Any, Any, Any, Any], tuple[Any, Any]]


class Replayed(Protocol):
    """A problem in the arithmetic in which its steps are replayed: a Problem, or a twin of one.

    number converts a double to a number of that arithmetic. f takes such a number as its time.
    """

    @property
    def y0(self) -> Any: ...
    @property
    def t(self) -> Tensor: ...
    @property
    def components(self) -> int: ...
    @property
    def jumps(self) -> tuple[float, ...]: ...
    @property
    def moving_t(self) -> Tensor | None: ...
    def component(self, i: int, y0: Any, /) -> Self: ...
    def number(self, x: float, /) -> Any: ...
    def stack(self, ys: Sequence[Any], /) -> Any: ...
    def f(self, t: Any, y: Any, /) -> Any: ...


def replay(tableau: ButcherTableau, problem: Replayed, grid: Grid) -> Any:
    """Return ys on the grid's steps, with the whole graph: (len(t), batch, dim).

    Step n:  k_i = f(t_n + c_i h_n, y_n + h_n sum_j a_ij k_j), an equation for k_i where a_ii is not zero, for all of
    them together where stages are coupled,
    y_{n+1} = y_n + h_n sum_i b_i k_i; an output inside the step is y_n + h_n sum_i b_i(sigma) k_i, and one at the
    step's pinned end is y_{n+1} itself.
    """
    A, c, g = tableau.extended_A, tableau.extended_c, tableau.extended_diagonal
    outputs: dict[int, list[int]] = {}
    for j, n in enumerate(grid.output_step.tolist()):
        outputs.setdefault(n, []).append(j)
    y, ys = problem.y0, dict.fromkeys(outputs[-1], problem.y0)
    for n, ((t, h), pinned_to) in enumerate(zip(times_of(problem, grid), grid.pinned_to.tolist(), strict=True)):
        here = outputs.get(n, [])
        # The interpolant's rows cost f calls, so they are evaluated only if an output needs them.
        rows = len(A) if any(j != pinned_to for j in here) else tableau.stages
        f = within_step(problem, grid.t[n].item(), grid.h[n].item())
        k: list[Any] = []
        if tableau.coupled:
            k += solved_stages(f, [t + float(node) * h for node in c], y, h, tableau.matrix)
        for i in range(len(k), rows):
            f_i = f if tableau.extended_parts is None else part_of(problem, tableau.extended_parts[i])
            time, before = t + float(c[i]) * h, combine(y, h, A[i], k)
            k.append(solved_stage(f_i, time, before, h * float(g[i])) if g[i] else f_i(time, before))
        y_next = combine(y, h, tableau.b, k)
        for j in here:
            sigma = float(grid.output_sigma[j]) if problem.moving_t is None else (problem.moving_t[j] - t) / h
            ys[j] = y_next if j == pinned_to else combine(y, h, tableau.interpolant.weights_at(sigma), k)
        y = y_next
    return problem.stack([ys[j] for j in sorted(ys)])


def times_of(problem: Replayed, grid: Grid) -> Iterator[tuple[Any, Any]]:
    """Yield (t, h) of each step, as functions of the problem's times if these move.

    A pinned end is an entry of t or a constant, and then h = end - t. A free end is t + h, and h is a constant.
    """
    start = None if problem.moving_t is None else problem.moving_t[0]
    for t, h, pinned_to in zip(grid.t.tolist(), grid.h.tolist(), grid.pinned_to.tolist(), strict=True):
        if start is None or problem.moving_t is None:
            yield problem.number(t), problem.number(h)
            continue
        begin = start + (t - start.detach())  # exactly the recorded value
        end = problem.moving_t[pinned_to] if pinned_to >= 0 else begin + h if pinned_to == FREE else t + h
        yield begin, h + (end - begin) - (end - begin).detach()
        start = end


FREE = -2
"""pinned_to of a step whose end no time prescribes."""

NEAR_A_JUMP = 1e-13
"""The relative distance within which a step's end counts as on a jump: its time is a sum, and rounded."""


def within_step(problem: Replayed, t: float, h: float) -> Func:
    """Return f for the step from t to t + h. At an end that is a jump, it is f on the step's own side of it."""
    low, high = min(t, t + h), max(t, t + h)
    near = [jump for jump in problem.jumps if low - NEAR_A_JUMP <= jump <= high + NEAR_A_JUMP]
    at_low = any(math.isclose(jump, low, rel_tol=NEAR_A_JUMP, abs_tol=NEAR_A_JUMP) for jump in near)
    at_high = any(math.isclose(jump, high, rel_tol=NEAR_A_JUMP, abs_tol=NEAR_A_JUMP) for jump in near)
    if not (at_low or at_high):
        return problem.f
    margin = 2 * NEAR_A_JUMP * max(1.0, abs(low), abs(high))
    least = problem.number(low + margin) if at_low else None
    most = problem.number(high - margin) if at_high else None

    def f(time: Any, y: Any) -> Any:
        if least is not None and time < least:
            time = least
        if most is not None and time > most:
            time = most
        return problem.f(time, y)

    return f


def part_of(problem: Any, part: int) -> Func:
    """Return one part of f, for additive methods, whose problems are no twins."""
    func = problem.pair[part]
    return lambda t, y: func(t.to(y) if isinstance(t, Tensor) else y.new_tensor(t), y)


def why_not_replayed(tableau: ButcherTableau, y0: Tensor) -> str | None:
    """Return why steps of this method from y0 cannot be replayed, or None."""
    if tableau.implicit and y0.numel() > MOST_NUMBERS:
        return f"implicit steps of more than {MOST_NUMBERS} numbers are not replayed"
    if tableau.coupled and y0.numel() * tableau.stages > MOST_NUMBERS:
        return f"coupled stages of more than {MOST_NUMBERS} numbers are not replayed"
    return None


def replay_as(kind: Kind, tableau: ButcherTableau, problem: Replayed, grid: Grid) -> Any:
    """Return ys on the grid's steps of this kind, with the graph: (len(t), batch, dim)."""
    if kind == "leapfrog":
        return replay_pairs(leapfrog_step, problem.f, problem, grid)
    if kind == "coupled":
        return replay_pairs(partial(coupled_step, tableau, COUPLING), lambda t, y: y, problem, grid)
    return replay(tableau, problem, grid)


def replay_pairs(step: PairStep, begin: Func, problem: Replayed, grid: Grid) -> Any:
    """Replay steps that carry a second state, initially begin(t_0, y_0). Outputs must be at the ends of steps."""
    outputs = grid.output_step.tolist()
    number, y, ys = problem.number, problem.y0, [problem.y0] * outputs.count(-1)
    other = begin(number(grid.t[0].item()), y)
    for n, (t, h) in enumerate(zip(grid.t.tolist(), grid.h.tolist(), strict=True)):
        y, other = step(within_step(problem, t, h), number(t), number(h), y, other)
        ys += [y] * outputs.count(n)
    return problem.stack(ys)


def leapfrog_step(f: Func, t: Any, h: Any, y: Any, v: Any) -> tuple[Any, Any]:
    """Take a step of asynchronous leapfrog without damping (Mutze, arXiv:1311.6602)."""
    half = y + v * (0.5 * h)
    v_next = 2.0 * f(t + 0.5 * h, half) - v
    return half + v_next * (0.5 * h), v_next


def coupled_step(tableau: ButcherTableau, coupling: float, f: Func, t: Any, h: Any, y: Any, z: Any) -> tuple[Any, Any]:
    """Take a reversible step made of a method's steps (McCallum and Foster, arXiv:2410.11648)."""
    y_next = coupling * y + (1.0 - coupling) * z + _increment(tableau, f, t, h, z)
    return y_next, z - _increment(tableau, f, t + h, -h, y_next)


def _increment(tableau: ButcherTableau, f: Func, t: Any, h: Any, y: Any) -> Any:
    k: list[Any] = []
    for a, node in zip(tableau.A[: tableau.stages], tableau.c, strict=False):
        k.append(f(t + float(node) * h, combine(y, h, a, k)))
    return combine(0.0 * y, h, tableau.b, k)


def equal_steps(t: Tensor, steps: int) -> Grid:
    """Return the grid of `steps` equal steps from t[0] to t[-1], with no other outputs."""
    t0, h = float(t[0]), float(t[-1] - t[0]) / steps
    return Grid(
        t=t0 + h * torch.arange(steps, dtype=torch.float64),
        h=torch.full((steps,), h, dtype=torch.float64),
        pinned_to=torch.tensor([-2] * (steps - 1) + [1]),
        output_step=torch.tensor([-1, steps - 1]),
        output_sigma=torch.tensor([0.0, 1.0], dtype=torch.float64),
    )


def gradient(problem: Problem, ys: Tensor) -> list[Tensor]:
    """Return dL/dx for each of the problem's inputs x (zeros where the loss does not depend on it)."""
    found = torch.autograd.grad(problem.loss(ys), problem.inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(problem.inputs, found, strict=True)]


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return ||found - expected|| / ||expected||, in the 2-norm of all entries together, in float64."""
    a, b = (torch.cat([x.detach().to("cpu", torch.float64).flatten() for x in xs]) for xs in (found, expected))
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def combine(y: Any, h: Any, weights: Sequence[Any], k: Sequence[Any]) -> Any:
    """Return y + h sum_i w_i k_i over the non-zero weights, which are rounded to doubles or functions of times."""
    for weight, slope in zip(weights, k, strict=False):
        if isinstance(weight, Tensor):
            y = y + slope * (h * weight)
        elif weight:
            y = y + slope * (h * float(weight))
    return y
