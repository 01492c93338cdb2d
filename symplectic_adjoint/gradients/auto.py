"""The fastest exact gradient within a memory budget."""

from dataclasses import dataclass, replace
from typing import ClassVar

from symplectic_adjoint.backward.budget import Budget, StartsWithinBudget, WithinBudget
from symplectic_adjoint.backward.checkpoints import RecomputedStarts
from symplectic_adjoint.backward.cost import call_cost
from symplectic_adjoint.backward.kept_steps import StepsFromStarts, transpose_steps
from symplectic_adjoint.backward.memory_model import MemoryModel
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.errors import BudgetTooSmall, UnsupportedCombination
from symplectic_adjoint.field.host_reads import is_capturing
from symplectic_adjoint.gradients.backprop import Backprop
from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes
from symplectic_adjoint.memory.free import free_budget
from symplectic_adjoint.memory.storage import OnDevice
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.stats import Choice

AUTO = "auto"
"""The name of this gradient in `gradient=`, which `memory_budget=` belongs to."""


@dataclass(frozen=True)
class Auto(Strategy):
    """The symplectic adjoint method that keeps as much of the forward pass as fits into memory_budget.

    memory_budget: a number of bytes or a string such as "2 GiB", a bound on all that the solve and its backward pass
    hold at any one time: ys, what is kept, and the current step; not y0, the parameters, or anything else that the
    caller holds. None: 80 % of what y0's device has free when the solve begins.

    If the number of steps is known and the whole graph fits, this is plain backpropagation, the fastest. Otherwise the
    solve discards what no longer fits as it goes, so the number of steps need not be known: first the graphs of the
    oldest f calls, then the oldest stages, then step starts, which are recomputed as in Revolve. Only starts are kept
    of captured steps, which cost little to recompute, and with implicit methods, whose cost is not known before. The
    solve's stats.choice says what was held. The first solve of a func with a new kind of state measures the cost of one
    f call with a few extra calls.
    """

    accumulates: ClassVar[bool] = True
    captures: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True

    memory_budget: int | str | None = None

    def __post_init__(self) -> None:
        if self.memory_budget is not None:
            parse_bytes("memory_budget", self.memory_budget)

    def memory_formula(self) -> str:
        return "memory_budget"

    def resolved(self, given: ForwardPass) -> tuple[Strategy, Choice | None]:
        """Return plain backpropagation if the number of steps is known and the whole graph fits."""
        if self.memory_budget is None:
            if is_capturing(given.y0.device):
                raise UnsupportedCombination(
                    'gradient="auto" cannot read how much memory is free while a CUDA stream is captured: give '
                    'memory_budget, or use another gradient, such as "symplectic"'
                )
            return replace(self, memory_budget=free_budget(given.y0.device)).resolved(given)
        if _keeps_only_starts(given.problem):
            return self, None
        steps = given.problem.total_steps
        if steps == 0:
            return Backprop(), Choice(self._limit_bytes, 0, 0, 0, starts=0, stages=0, graphs=0)
        if steps is None or given.problem.accumulate is not None:
            return self, None
        budget = self._budget(given)
        peak = budget.model.whole_graph_bytes(steps)
        if peak > budget.limit_bytes:
            return self, None
        calls = steps * budget.model.stages
        stages = calls - steps
        return Backprop(), Choice(budget.limit_bytes, peak, steps, calls, starts=steps, stages=stages, graphs=calls)

    def keeper(self, given: ForwardPass) -> WithinBudget | StartsWithinBudget:
        budget, only_starts = self._budget(given), _keeps_only_starts(given.problem)
        least_bytes = StartsWithinBudget.least_bytes(budget.model) if only_starts else budget.model.least_bytes
        if budget.limit_bytes < least_bytes:
            raise BudgetTooSmall(
                f"memory_budget={self.memory_budget!r} is too small for one step and one more state: give "
                f"{format_bytes(least_bytes, up=True)} ({least_bytes} bytes) or more",
                least_bytes,
            )
        if only_starts:
            return StartsWithinBudget(budget, given.problem.total_steps)
        return WithinBudget(budget, given.problem.total_steps, with_time=given.with_time)

    def _budget(self, given: ForwardPass) -> Budget:
        problem = replace(given.problem, capture=False)  # the cost is that of func's own calls
        cost = call_cost(problem, given.y0, with_time=given.with_time)
        adaptive = problem.recorded is None and problem.options.control is not None
        tableau = problem.tableau
        rows, inside = tableau.interpolant.rows, problem.most_outputs_inside
        model = MemoryModel(cost, tableau.stages, problem.held_outputs, adaptive, rows, inside)
        return Budget(self._limit_bytes, model)

    @property
    def _limit_bytes(self) -> int:
        assert self.memory_budget is not None, "resolved gives a budget"
        return parse_bytes("memory_budget", self.memory_budget)

    def backward(self, given: BackwardPass) -> Gradients:
        starts = len({n for n in given.steps if n > 0})
        return transpose_steps(given, StepsFromStarts(given, RecomputedStarts(given, max(0, starts - 1), OnDevice())))


def _keeps_only_starts(problem: Problem) -> bool:
    return bool(problem.capture) or problem.tableau.implicit
