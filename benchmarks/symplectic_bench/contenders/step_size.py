"""The equal steps of a cell with fixed steps."""

import torch
from torch import Tensor

from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell


def step_size(cell: Cell, t: Tensor) -> float:
    """Return the size of each of the cell's equal steps from t[0] to t[-1]."""
    assert cell.steps is not None, "an adaptive cell has no step size"
    return float(t[-1] - t[0]) / cell.steps


def equal_grid(cell: Cell, problem: Problem) -> Tensor:
    """Return the ends of the cell's equal steps, on the device of y0, for solvers that step from output to output."""
    assert cell.steps is not None, "an adaptive cell has no grid"
    first, *_, last = problem.t.tolist()  # on the CPU: reading times from the device would wait for it
    return torch.linspace(first, last, cell.steps + 1, dtype=problem.t.dtype).to(problem.y0.device)


def outputs_of(ys: Tensor, problem: Problem) -> Tensor:
    """Return the problem's outputs from the states on its equal_grid."""
    return ys[:: (len(ys) - 1) // (len(problem.t) - 1)]
