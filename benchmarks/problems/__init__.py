"""The problems, by name."""

from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.problems.flow import FLOW
from benchmarks.problems.identity import IDENTITY
from benchmarks.problems.linear import LINEAR
from benchmarks.problems.lotka_volterra import LOTKA_VOLTERRA
from benchmarks.problems.mlp import MLP
from benchmarks.problems.problem import DTYPES, Family, Problem
from benchmarks.problems.spiral import SPIRAL
from benchmarks.problems.van_der_pol import VAN_DER_POL

__all__ = ["DTYPES", "PROBLEMS", "Family", "Problem", "build"]

PROBLEMS: dict[str, Family] = {
    family.name: family for family in (IDENTITY, LINEAR, MLP, SPIRAL, VAN_DER_POL, LOTKA_VOLTERRA, FLOW)
}


def build(cell: Cell, cache_dir: Path) -> Problem:
    """The problem of a cell, in the cell's dtype on its device."""
    family = PROBLEMS[cell.problem]
    return family.build(cell.sizes_dict, cell.batch, cell.dtype, cell.device, cell.seed, cache_dir)
