"""This repository's library as a contender: plain, compiled, captured, and with a precise sum of the gradient."""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from symplectic_adjoint import (
    METHODS,
    Grid,
    Solution,
    SolverError,
    Stats,
    StepControlOffWarning,
    StiffnessWarning,
    Strategy,
    solve,
)
from symplectic_bench.contenders.contender import Solved
from symplectic_bench.contenders.counts import Counts, total
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.contenders.gradient_run import SolveRun, giving_up
from symplectic_bench.contenders.library_gradients import NAMES, STRATEGIES, family, library_gradient
from symplectic_bench.contenders.observation import Observation, replay_in_turn
from symplectic_bench.contenders.reasons import GRADIENTS_ELSEWHERE, one_part, shared_reason, takes_pair
from symplectic_bench.contenders.step_size import step_size
from symplectic_bench.oracles.recorded_grid import Replayed, replay_as, why_not_replayed
from symplectic_bench.problems import Problem, in_turn
from symplectic_bench.spec.cell import Cell, is_users_problem
from symplectic_bench.spec.suggestion import suggestion

# A cell with `steps` asks for fixed steps of any method.
warnings.filterwarnings("ignore", category=StepControlOffWarning)

TAKES: Mapping[str, Callable[[Strategy], bool]] = {
    "compile": lambda one: one.compiles and not one.obstacle_to_compile,
    "capture": lambda one: one.captures and not one.obstacle_to_capture,
    "accumulate": lambda one: one.accumulates,
}
"""Whether a gradient takes a keyword of solve."""


@dataclass(frozen=True)
class Ours:
    """The library with the keywords compile, capture and accumulate of solve fixed."""

    name: str = "ours"
    compile: bool = False
    capture: bool = False
    accumulate: str | None = None
    remark: str = ""
    framework: Literal["torch"] = "torch"

    @property
    def keywords(self) -> dict[str, Any]:
        """The fixed keywords, without those at their defaults."""
        every = {"compile": self.compile, "capture": self.capture, "accumulate": self.accumulate}
        return {name: value for name, value in every.items() if value}

    @property
    def compiles(self) -> bool:
        return self.compile or self.capture

    @property
    def captures(self) -> bool:
        return self.capture

    @property
    def gradients(self) -> Sequence[str]:
        return tuple(name for name, one in STRATEGIES.items() if all(TAKES[word](one) for word in self.keywords))

    def decline(self, cell: Cell) -> str | None:
        if library_gradient(cell.gradient) is None:
            near = suggestion(cell.gradient, NAMES, GRADIENTS_ELSEWHERE)
            return f"the library has no gradient {cell.gradient!r}{near}"
        if cell.method not in METHODS:
            return f"the library has no method {cell.method!r}; it has {', '.join(METHODS)}"
        if family(cell.gradient) not in self.gradients:
            words = ", ".join(f"{word}={value!r}" for word, value in self.keywords.items())
            return f"{words} works with {', '.join(self.gradients)}, not with {cell.gradient!r}"
        if takes_pair(cell.method) and (reason := one_part(cell)):
            return reason
        if METHODS[cell.method].implicit and not STRATEGIES[family(cell.gradient)].takes_implicit:
            return f"gradient {cell.gradient!r} does not work with implicit methods"
        return shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        if not self.compile or shutil.which(cxx := _cxx()) is not None:
            return None
        return f"there is no C++ compiler {cxx!r} here, which compile=True needs: install one or set CXX"

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        _expect_stiffness(cell)
        return SolveRun(problem, lambda: in_turn(problem, lambda part: self._solve(part, cell).ys), self.gives_up)

    def integrate(self, problem: Problem, cell: Cell) -> Solved:
        solution = self._solve(problem, cell)
        return Solved(solution.ys, lambda: _counts(solution.stats))

    def gives_up(self, error: Exception) -> bool:
        return isinstance(error, SolverError)

    def load(self) -> None:
        """Do nothing: this module has already imported the library."""

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        _expect_stiffness(cell)
        solutions: list[Solution] = []

        def one(part: Problem) -> Tensor:
            solutions.append(self._solve(part, cell))
            return solutions[-1].ys

        with giving_up(self.gives_up):
            ys = in_turn(problem, one)
            loss = problem.loss(ys)
            loss.backward()
        grids = [solution.grid for solution in solutions]
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=total([_counts(solution.stats) for solution in solutions]),
            replay=why_not_replayed(METHODS[cell.method], problem.y0)
            or replay_in_turn([partial(_replay, cell, grid) for grid in grids]),
            in_float64=METHODS[cell.method].implicit,
            steps=(gradient_record(cell.gradient).steps, *(x for grid in grids for x in _bytes_of(grid))),
        )

    def _solve(self, problem: Problem, cell: Cell) -> Solution:
        accuracy: dict[str, Any] = {"rtol": cell.rtol, "atol": cell.atol}
        options: dict[str, Any] = {"jump_t": problem.t.new_tensor(problem.jumps)} if problem.jumps else {}
        if cell.steps is not None:
            accuracy, options["step_size"] = {}, step_size(cell, problem.t)
        how: dict[str, Any] = {**self.keywords, "params": problem.unlisted or None}
        gradient = library_gradient(cell.gradient)
        if gradient is None:  # which would be the library's default
            raise ValueError(self.decline(cell))
        method = (
            None if gradient_record(cell.gradient).steps == "leapfrog" else cell.method
        )  # leapfrog is itself a method
        how |= {"method": method, "gradient": gradient, "options": options, **accuracy}
        if not problem.parts:
            func: Any = problem.pair if takes_pair(cell.method) else problem.func
            return solve(func, problem.y0, problem.solved_t, **how)
        solution = solve(InParts(problem), problem.y0.split(problem.parts, dim=-1), problem.solved_t, **how)
        return replace(solution, ys=torch.cat(solution.ys, dim=-1))


class InParts(nn.Module):
    """A problem's field as a function of a tuple: the parts of its state."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.func, self.parts = problem.func, problem.parts

    def forward(self, t: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.func(t, torch.cat(parts, dim=-1)).split(self.parts, dim=-1)


def _counts(stats: Stats) -> Counts:
    return Counts(
        f_calls_forward=stats.f_calls_forward,
        f_calls_backward=stats.f_calls_backward,
        vjps_forward=stats.vjps_forward,
        vjps_backward=stats.vjps_backward,
        steps_accepted=stats.accepted,
        steps_rejected=stats.rejected,
        steps_backward=stats.accepted_backward or None,
    )


def _replay(cell: Cell, grid: Grid, twin: Replayed) -> Any:
    return replay_as(gradient_record(cell.gradient).steps, METHODS[cell.method], twin, grid)


def _bytes_of(grid: Grid) -> Iterator[bytes]:
    for name in ("t", "h", "pinned_to", "output_step", "output_sigma"):
        yield getattr(grid, name).numpy().tobytes()


def _expect_stiffness(cell: Cell) -> None:
    """Ignore the warning that a standard problem is stiff, which explicit methods solve for comparison."""
    if not is_users_problem(cell.problem):
        warnings.filterwarnings("ignore", category=StiffnessWarning)


def _cxx() -> str:
    """Return the compiler that torch.compile calls."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


OURS = Ours()
OURS_COMPILED = Ours("ours-compiled", compile=True)
OURS_CAPTURED = Ours("ours-captured", capture=True)
OURS_CAPTURED_COMPILED = Ours("ours-captured-compiled", compile=True, capture=True)
OURS_FLOAT64 = Ours("ours-float64", accumulate="float64")
OURS_COMPENSATED = Ours("ours-compensated", accumulate="compensated")
