"""The cost of every exact gradient on the caller's own model, predicted from one call of f."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.api import pose
from symplectic_adjoint.arguments import checked_times
from symplectic_adjoint.backward.budget import Budget
from symplectic_adjoint.backward.cost import CallCost, call_cost
from symplectic_adjoint.backward.schedule import advances
from symplectic_adjoint.field.parameters import alone
from symplectic_adjoint.gradients.revolve import Revolve
from symplectic_adjoint.gradients.symplectic import Symplectic
from symplectic_adjoint.memory.byte_size import bytes_in, in_words
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.time_loop import KeepNothing


@dataclass(frozen=True)
class PredictedCost:
    """The predicted cost of one gradient.

    calls_s: the time of the calls and VJPs of f alone. peak_tensor_bytes: the most bytes that are live at once.
    """

    gradient: str
    f_calls_forward: int
    f_calls_backward: int
    vjps_backward: int
    calls_s: float
    peak_tensor_bytes: int


@dataclass(frozen=True)
class Advice:
    """Predictions for a solve of `steps` steps, fastest first. str() is a table.

    least_bytes: the smallest memory_budget that gradient="auto" can use.
    """

    rows: Sequence[PredictedCost]
    steps: int
    cost: CallCost
    budget_bytes: int | None
    least_bytes: int

    @property
    def best(self) -> PredictedCost | None:
        """The fastest row within budget_bytes; None if there is none, or no budget."""
        if self.budget_bytes is None:
            return None
        return next((row for row in self.rows if row.peak_tensor_bytes <= self.budget_bytes), None)

    def __str__(self) -> str:
        table = [("gradient", "f calls", "f and VJPs, ms", "peak")]
        table += [
            (
                row.gradient,
                f"{row.f_calls_forward} + {row.f_calls_backward}",
                f"{1e3 * row.calls_s:.3g}",
                in_words(row.peak_tensor_bytes) + (" *" if row == self.best else ""),
            )
            for row in self.rows
        ]
        name, *numbers = [max(len(line[i]) for line in table) for i in range(4)]
        lines = ["  ".join([x.ljust(name), *map(str.rjust, xs, numbers)]) for x, *xs in table]
        return "\n".join([f"{self.steps} steps, predicted", *lines, self._last_line()])

    def _last_line(self) -> str:
        least = f"the least is {in_words(self.least_bytes, up=True)}"
        if self.budget_bytes is None:
            return f'gradient="auto" fills any memory_budget; {least}'
        budget = in_words(self.budget_bytes)
        if self.budget_bytes < self.least_bytes:
            return f"nothing fits into {budget}: {least}"
        if self.best is None:
            return f'none of these fits into {budget}: gradient="auto" does'
        return f'* the fastest of these within {budget}; gradient="auto" may do better between them'


def advise(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    memory_budget: int | str | None = None,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    params: Sequence[Tensor] | None = None,
) -> Advice:
    """Predict the time and memory of every exact gradient of a solve.

    Takes the arguments of odeint and raises what it raises. memory_budget: bytes, or a text such as "2 GiB". Measures
    one call of f and its VJP; adaptive steps are counted by a solve without a gradient. Times are those of the calls
    alone, without the solver's own work. mali and continuous take other steps and are left out.
    """
    budget_bytes = None if memory_budget is None else bytes_in("memory_budget", memory_budget)
    checked_times(t)
    with alone(func):
        problem, packed = pose(
            func, y0, t.detach(), rtol, atol, method, options, None, Symplectic(), "symplectic", params
        )
        y = packed.detach()
        cost = call_cost(problem, y, with_time=t.requires_grad)
        steps = _number_of_steps(problem, y)
    budget = Budget(0, cost, problem.tableau.stages, len(problem.times), problem.options.control is not None)
    rows = sorted(_predicted(budget, steps), key=lambda row: row.calls_s)
    return Advice(rows, steps, cost, budget_bytes, budget.least_bytes)


@torch.no_grad()
def _number_of_steps(problem: Problem, y0: Tensor) -> int:
    known = problem.total_steps
    return problem.solve(y0, KeepNothing())[1].stats.accepted if known is None else known


def _predicted(budget: Budget, steps: int) -> Iterator[PredictedCost]:
    cost, N, s = budget.cost, steps, budget.stages
    room = Revolve().checkpoints
    assert isinstance(room, int)
    again = max(0, advances(N, room) - (N - 1))
    symplectic = N * (2 * s - 1) - (s - 1)
    on_a_step = s * cost.graph_bytes + max(0, cost.vjp_peak_bytes - cost.graph_bytes) - cost.vjp_peak_bytes
    whole = budget.of_the_whole_graph(N)
    starts = max(0, N - 1)
    for gradient, forward, back, vjps, peak in (
        ("backprop", N * s, 0, N * s, whole),
        ("baseline", N * s, N * s, N * s, whole + cost.state_bytes),
        ("aca", N * s, N * s, N * s, budget.taken(starts, 1, 0) + on_a_step),
        ("stages", N * s, N * s, N * s, budget.taken(starts, N * (s - 1) + 1, 0)),
        ("symplectic", N * s, symplectic, N * s, budget.taken(starts, 0, 0)),
        ("revolve", N * s, symplectic + s * again, N * s, budget.taken(min(starts, room + 1), 0, 0)),
        ("reversible", 2 * s * N - s, 4 * s * N - 2 * s, 2 * s * N - s, budget.taken(4, 0, 0)),
    ):
        calls_s = (forward + back) * cost.call_s + vjps * cost.vjp_s
        yield PredictedCost(gradient, forward, back, vjps, calls_s, peak)
