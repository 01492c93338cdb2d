"""The cost of the exact gradients of the caller's own model, predicted from one call of f."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.arguments import Arguments, MethodKeywords, build_problem, shows_keywords
from symplectic_adjoint.backward.cost import CallCost, call_cost
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.split_function import FuncOrPair
from symplectic_adjoint.gradients import DEFAULT_GRADIENT, GRADIENTS
from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes
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
                format_bytes(row.peak_tensor_bytes) + (" *" if row == self.best else ""),
            )
            for row in self.rows
        ]
        name, *numbers = [max(len(line[i]) for line in table) for i in range(4)]
        lines = ["  ".join([x.ljust(name), *map(str.rjust, xs, numbers)]) for x, *xs in table]
        return "\n".join([f"{self.steps} steps, predicted", *lines, self._last_line()])

    def _last_line(self) -> str:
        least = f"the least is {format_bytes(self.least_bytes, up=True)}"
        if self.budget_bytes is None:
            return f'gradient="auto" fills any memory_budget; {least}'
        budget = format_bytes(self.budget_bytes)
        if self.budget_bytes < self.least_bytes:
            return f"nothing fits into {budget}: {least}"
        if self.best is None:
            return f'none of these fits into {budget}: gradient="auto" does'
        return f'* the fastest of these within {budget}; gradient="auto" may do better between them'


@untraced
@shows_keywords(MethodKeywords)
def advise(
    func: FuncOrPair,
    y0: Any,
    t: Tensor,
    *,
    memory_budget: int | str | None = None,
    **keywords: Unpack[MethodKeywords],
) -> Advice:
    """Predict the time and memory of the exact gradients of a solve.

    Takes odeint's rtol, atol, method, options and params, and raises odeint's errors. memory_budget: bytes, or a string
    such as "2 GiB". Measures one call of f and its VJP; adaptive steps are counted by a solve without a gradient. Times
    are those of the calls alone, without the solver's own work. mali and continuous take other steps and are excluded.
    Raises UnsupportedCombination for an implicit method, whose f calls are as many as Newton's method takes.
    """
    budget_bytes = None if memory_budget is None else parse_bytes("memory_budget", memory_budget)
    given = Arguments.of("advise", keywords, func=func, y0=y0, t=t, gradient=DEFAULT_GRADIENT)
    problem, _, packed = build_problem(given.with_constant_times())
    if problem.tableau.implicit:
        raise UnsupportedCombination(
            f"advise() cannot predict the f calls of method={problem.tableau.name!r}, which is implicit: measure them "
            "by compare_gradients()"
        )
    y = packed.detach()
    cost = call_cost(problem, y, with_time=t.requires_grad)
    steps = _number_of_steps(problem, y)
    tableau, adaptive = problem.tableau, problem.options.control is not None
    rows, inside = tableau.interpolant.rows, problem.most_outputs_inside
    model = MemoryModel(cost, tableau.stages, problem.held_outputs, adaptive, rows, inside)
    predictions = {name: one.predicted(model, steps) for name, one in GRADIENTS.items()}
    rows = [_row(name, predicted, cost) for name, predicted in predictions.items() if predicted is not None]
    return Advice(sorted(rows, key=lambda row: row.calls_s), steps, cost, budget_bytes, model.least_bytes)


@torch.no_grad()
def _number_of_steps(problem: Problem, y0: Tensor) -> int:
    known = problem.total_steps
    return problem.solve(y0, KeepNothing())[1].stats.accepted if known is None else known


def _row(gradient: str, predicted: Prediction, cost: CallCost) -> PredictedCost:
    calls = predicted.f_calls_forward + predicted.f_calls_backward
    calls_s = calls * cost.call_s + predicted.vjps_backward * cost.vjp_s
    return PredictedCost(gradient, calls_s=calls_s, **asdict(predicted))
