"""The exact gradient as fast as a number of bytes allows."""

from dataclasses import dataclass
from typing import ClassVar

from symplectic_adjoint.backward.budget import Budget, WithinBudget
from symplectic_adjoint.backward.checkpoints import RetakenStarts
from symplectic_adjoint.backward.cost import call_cost
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients
from symplectic_adjoint.errors import BudgetTooSmall
from symplectic_adjoint.gradients.symplectic import KeptStarts, swept
from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes
from symplectic_adjoint.memory.storage import AsMade
from symplectic_adjoint.solve.problem import Choice


@dataclass(frozen=True)
class Auto:
    """The symplectic adjoint method with whatever spares f calls on the way back and fits into memory_budget.

    memory_budget: a number of bytes or a text such as "2 GiB", for all that the solve and its way back have live at
    once: ys, what is kept, and the step at hand; not y0, the parameters and what the caller holds besides. Where the
    number of steps is known and the whole graph fits, this is plain backpropagation, the fastest. Otherwise what does
    not fit is given up as the solve goes on, so that nobody has to know how many steps there will be: the graphs of
    the oldest f calls first, then the oldest stages, then starts of steps, which are then taken again as in Revolve.
    What was held in the end is in the solve's stats.choice. The first solve of a func with states of a kind calls it
    a few times more, to measure what a call takes.
    """

    memory_budget: int | str
    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        parse_bytes("memory_budget", self.memory_budget)

    def whole_graph(self, given: ForwardPass) -> Choice | None:
        """Plain backpropagation, the fastest, where the number of steps is known and it fits."""
        steps = given.problem.total_steps
        if steps is None or given.problem.accumulate is not None:
            return None
        budget = self._budget(given)
        peak = budget.of_the_whole_graph(steps)
        if peak > budget.limit_bytes:
            return None
        calls = steps * budget.stages
        return Choice(budget.limit_bytes, peak, steps, f_calls=calls, starts=steps, stages=calls - steps, graphs=calls)

    def keeper(self, given: ForwardPass) -> WithinBudget:
        budget = self._budget(given)
        if budget.limit_bytes < budget.least_bytes:
            raise BudgetTooSmall(
                f"memory_budget={self.memory_budget!r} is less than one step and one state besides take: give "
                f"{format_bytes(budget.least_bytes, up=True)} ({budget.least_bytes} bytes) or more",
                budget.least_bytes,
            )
        return WithinBudget(budget, given.problem.total_steps, with_time=given.with_time)

    def _budget(self, given: ForwardPass) -> Budget:
        problem = given.problem
        cost = call_cost(problem, given.y0, with_time=given.with_time)
        adaptive = problem.recorded is None and problem.options.control is not None
        limit = parse_bytes("memory_budget", self.memory_budget)
        return Budget(limit, cost, problem.tableau.stages, len(problem.times), adaptive)

    def backward(self, given: BackwardPass) -> Gradients:
        starts = len({n for n in given.steps if n > 0})
        return swept(given, KeptStarts(given, RetakenStarts(given, max(0, starts - 1), AsMade())))
