"""The base class of adapters to other libraries in torch."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Literal

from torch import Tensor, nn

from symplectic_bench.contenders.contender import Solved
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.counts import Counts, total
from symplectic_bench.contenders.gradient_run import SolveRun, giving_up
from symplectic_bench.contenders.observation import Observation, Replay, replay_in_turn
from symplectic_bench.problems import Problem, in_turn
from symplectic_bench.spec.cell import Cell


class Peer(ABC):
    """A Contender and Trainer in torch whose f calls are counted from outside.

    An adapter implements solve, gives_up, replay and load, besides the Contender's decline and missing.
    """

    framework: Literal["torch"] = "torch"
    compiles: bool = False
    captures: bool = False
    remark: str = ""
    precision: str | None = None
    """Observation.precision."""

    @abstractmethod
    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        """Return ys, differentiable, of func from the problem's y0 over its times."""

    @abstractmethod
    def gives_up(self, error: Exception) -> bool:
        """Return whether their solver raises this when it cannot continue."""

    def witness(self, func: nn.Module, cell: Cell) -> CountedField:
        """Wrap func so that it counts its calls."""
        del cell
        return CountedField(func)

    def recount(self, witness: Any, cell: Cell) -> Counts:
        """Return the cost of one solve from its witness, after the backward pass. Only fixed steps are known."""
        return witness.counts(cell.steps, None if cell.steps is None else 0)

    @abstractmethod
    def replay(self, witness: Any, problem: Problem, cell: Cell) -> Replay: ...

    def steps(self, witness: Any) -> Hashable:
        """Return Observation.steps."""
        del witness

    @abstractmethod
    def load(self) -> object:
        """Import their package, so that it is not imported while time and memory are measured."""

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        self.load()

        def solve() -> Tensor:
            return in_turn(problem, lambda part: self.solve(part.func, part, cell))

        return SolveRun(problem, solve, self.gives_up)

    def integrate(self, problem: Problem, cell: Cell) -> Solved:
        witness = self.witness(problem.func, cell)
        ys = self.solve(witness, problem, cell)

        def begin_backward(grad: Tensor) -> None:
            del grad
            witness.backward_phase = True

        if ys.requires_grad:
            ys.register_hook(begin_backward)
        return Solved(ys, lambda: self.recount(witness, cell))

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        witnesses: list[CountedField] = []

        def solve(part: Problem) -> Tensor:
            witnesses.append(self.witness(part.func, cell))
            return self.solve(witnesses[-1], part, cell)

        with giving_up(self.gives_up):
            ys = in_turn(problem, solve)
            loss = problem.loss(ys)
            for witness in witnesses:
                witness.backward_phase = True
            loss.backward()
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=total([self.recount(witness, cell) for witness in witnesses]),
            replay=replay_in_turn([self.replay(witness, problem, cell) for witness in witnesses]),
            steps=self.steps(witnesses[0]) if len(witnesses) == 1 else None,
            precision=self.precision,
        )
