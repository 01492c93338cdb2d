"""The problems, by name."""

from pathlib import Path

from benchmarks.cell import Cell
from benchmarks.problems.cahn_hilliard import CAHN_HILLIARD
from benchmarks.problems.fitzhugh_nagumo import FITZHUGH_NAGUMO
from benchmarks.problems.flow import FLOW
from benchmarks.problems.forced import FORCED
from benchmarks.problems.harmonic import HARMONIC
from benchmarks.problems.identity import IDENTITY
from benchmarks.problems.imported import NoProblem, load_family
from benchmarks.problems.kdv import KDV
from benchmarks.problems.kepler import KEPLER
from benchmarks.problems.linear import LINEAR
from benchmarks.problems.logistic import LOGISTIC
from benchmarks.problems.lorenz import LORENZ
from benchmarks.problems.lotka_volterra import LOTKA_VOLTERRA
from benchmarks.problems.memory_flow import MEMORY_FLOW
from benchmarks.problems.mlp import MLP
from benchmarks.problems.outlier import OUTLIER
from benchmarks.problems.problem import DTYPES, Family, Problem, in_turn
from benchmarks.problems.robertson import ROBERTSON
from benchmarks.problems.spiral import SPIRAL
from benchmarks.problems.stack import STACK
from benchmarks.problems.three_body import THREE_BODY
from benchmarks.problems.unlisted import UNLISTED
from benchmarks.problems.van_der_pol import VAN_DER_POL

__all__ = ["DTYPES", "PROBLEMS", "Family", "NoProblem", "Problem", "build", "in_turn"]


class Problems(dict[str, Family]):
    """The standard ones, and by its import path any other, which is imported when it is first asked for."""

    def __missing__(self, name: str) -> Family:
        if ":" not in name:
            raise KeyError(name)
        family = self[name] = load_family(name)
        return family


PROBLEMS = Problems(
    (family.name, family)
    for family in (
        IDENTITY,
        LINEAR,
        LOGISTIC,
        HARMONIC,
        KEPLER,
        FORCED,
        MLP,
        SPIRAL,
        VAN_DER_POL,
        OUTLIER,
        LOTKA_VOLTERRA,
        FITZHUGH_NAGUMO,
        LORENZ,
        THREE_BODY,
        ROBERTSON,
        MEMORY_FLOW,
        KDV,
        CAHN_HILLIARD,
        FLOW,
        STACK,
        UNLISTED,
    )
)


def build(cell: Cell, cache_dir: Path) -> Problem:
    """The problem of a cell, in the cell's dtype on its device."""
    family = PROBLEMS[cell.problem]
    return family.build(cell.sizes_dict, cell.batch, cell.dtype, cell.device, cell.seed, cache_dir)
