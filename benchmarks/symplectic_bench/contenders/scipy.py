"""SciPy as a contender: its stiff solvers and finite differences of the loss, as one does without an adjoint.

The loss is solved for once more for each number in y0 and the parameters, changed by the square root of rtol, so that
the solver's error and that of the difference are of one size. Radau and BDF are methods of SciPy's own, whatever the
cell's method; they choose their steps, form Jacobians of the whole batch by differences, and begin anew at outputs and
jumps.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.contenders.contender import Contender
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.observation import Observation
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    several_fields,
    unknown_gradient,
)
from symplectic_bench.problems import Problem
from symplectic_bench.problems.pieces import Piece, pieces
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged, TooCostly

SOLVERS = {"differences-radau": "Radau", "differences-bdf": "BDF"}
"""Our name of the gradient -> SciPy's of the solver."""

MOST_NUMBERS = 100
"""The largest number of derivatives, each of which takes a solve."""


@dataclass(frozen=True)
class SciPy:
    """scipy.integrate.solve_ivp, on the CPU in float64."""

    name: str = "scipy"
    gradients: tuple[str, ...] = tuple(SOLVERS)
    framework: Literal["numpy"] = "numpy"
    compiles: bool = False
    captures: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell) or several_fields(cell):
            return reason
        if cell.steps is not None:
            return "SciPy's stiff solvers choose their steps: give tolerances"
        if (cell.device, cell.dtype) != ("cpu", "float64"):
            return f"SciPy computes in float64 on the CPU, not in {cell.dtype} on {cell.device}"
        return None

    def missing(self) -> str | None:
        return not_installed("scipy", "python -m pip install scipy")

    def gradient(self, problem: Problem, cell: Cell) -> "DifferencesRun":
        _require_few(problem)
        importlib.import_module("scipy.integrate")  # now rather than while time and memory are measured
        return DifferencesRun(problem, cell)

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        _require_few(problem)
        solver = _Solver(problem, cell)
        ys = solver.solve()
        loss = _loss(problem, ys)
        return Observation(
            loss=loss,
            final_state=ys[-1],
            gradient=_differences(problem, cell, solver, loss),
            counts=Counts(solver.f_calls, 0, 0, 0, None, None),
            replay="finite differences are not the gradient of any steps",
        )


class _Solver:
    """Solves the problem, with whatever its tensors hold at the time, and counts calls of f in all solves."""

    def __init__(self, problem: Problem, cell: Cell) -> None:
        self.problem, self.f_calls = problem, 0
        self.how: dict[str, Any] = {"method": SOLVERS[cell.gradient], "rtol": cell.rtol, "atol": cell.atol}

    def solve(self) -> Tensor:
        """Return ys (len(t), batch, dim). Raise Diverged if SciPy gives up."""
        return torch.from_numpy(np.stack(list(self._moments()))).reshape(-1, *self.problem.y0.shape)

    def _moments(self) -> Iterator[np.ndarray]:
        from scipy.integrate import solve_ivp

        y = self.problem.y0.detach().numpy().flatten()
        yield y
        for piece in pieces(self.problem):
            found = solve_ivp(self._slopes(piece), (piece.start, piece.end), y, t_eval=[piece.end], **self.how)
            if not found.success:
                raise Diverged(f"SciPy gave up between t = {piece.start:g} and {piece.end:g}: {found.message}")
            y = found.y[:, -1]
            if piece.output:
                yield y

    def _slopes(self, piece: Piece) -> Any:
        def slopes(t: float, y: np.ndarray) -> np.ndarray:
            self.f_calls += 1
            with torch.no_grad():
                return self.problem.f(piece.inside(t), torch.from_numpy(y).view_as(self.problem.y0)).numpy().ravel()

        return slopes


@torch.no_grad()
def _differences(problem: Problem, cell: Cell, solver: _Solver, at: float) -> list[Tensor]:
    """Return the differences from the loss `at` over every number of the inputs, which are put back."""
    assert cell.rtol is not None, "cells with fixed steps are declined"
    found: list[Tensor] = []
    for x in problem.inputs:
        numbers, slopes = x.detach().view(-1), torch.empty(x.numel(), dtype=x.dtype)
        for i, number in enumerate(numbers.tolist()):
            step = cell.rtol**0.5 * max(1.0, abs(number))
            numbers[i] = number + step
            slopes[i] = (_loss(problem, solver.solve()) - at) / (float(numbers[i]) - number)
            numbers[i] = number
        found.append(slopes.view_as(x))
    return found


def _loss(problem: Problem, ys: Tensor) -> float:
    with torch.no_grad():
        return float(problem.loss(ys))


class DifferencesRun(GradientRun):
    """The solve for the loss, then one for each number, which leave the gradient in the inputs' .grad."""

    def __init__(self, problem: Problem, cell: Cell) -> None:
        self.problem, self.cell, self.loss = problem, cell, 0.0
        self.solver = _Solver(problem, cell)

    def forward(self) -> float:
        self.loss = _loss(self.problem, self.solver.solve())
        return self.loss

    def backward(self) -> None:
        gradient = _differences(self.problem, self.cell, self.solver, self.loss)
        for x, g in zip(self.problem.inputs, gradient, strict=True):
            x.grad = g


def _require_few(problem: Problem) -> None:
    numbers = sum(x.numel() for x in problem.inputs)
    if numbers > MOST_NUMBERS:
        raise TooCostly(f"finite differences take a solve for each of {numbers} numbers, more than {MOST_NUMBERS}")


SCIPY: Contender = SciPy()
