"""The step size of a cell with fixed steps."""

from torch import Tensor

from symplectic_bench.spec.cell import Cell


def step_size(cell: Cell, t: Tensor) -> float:
    """Return the size of each of the cell's equal steps from t[0] to t[-1]."""
    assert cell.steps is not None, "an adaptive cell has no step size"
    return float(t[-1] - t[0]) / cell.steps
