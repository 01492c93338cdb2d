"""The problems, by name.

Their quantities are dimensionless. Most have the sizes `end`, the last time, and `outputs`, the number of equally
spaced output times after the start at 0.
"""

from pathlib import Path

from symplectic_bench.problems.allen_cahn import ALLEN_CAHN
from symplectic_bench.problems.brusselator import BRUSSELATOR
from symplectic_bench.problems.brusselator_2d import BRUSSELATOR_2D
from symplectic_bench.problems.cahn_hilliard import CAHN_HILLIARD
from symplectic_bench.problems.convolution import CONVOLUTION
from symplectic_bench.problems.coupled_oscillators import COUPLED_OSCILLATORS
from symplectic_bench.problems.double_pendulum import DOUBLE_PENDULUM
from symplectic_bench.problems.fitzhugh_nagumo import FITZHUGH_NAGUMO
from symplectic_bench.problems.flow import FLOW
from symplectic_bench.problems.flow_exact import FLOW_EXACT
from symplectic_bench.problems.forced import FORCED
from symplectic_bench.problems.harmonic import HARMONIC
from symplectic_bench.problems.hires import HIRES
from symplectic_bench.problems.identity import IDENTITY
from symplectic_bench.problems.imported import load_family
from symplectic_bench.problems.irregular import IRREGULAR
from symplectic_bench.problems.kdv import KDV
from symplectic_bench.problems.kepler import KEPLER
from symplectic_bench.problems.linear import LINEAR
from symplectic_bench.problems.logistic import LOGISTIC
from symplectic_bench.problems.lorenz import LORENZ
from symplectic_bench.problems.lotka_volterra import LOTKA_VOLTERRA
from symplectic_bench.problems.memory_flow import MEMORY_FLOW
from symplectic_bench.problems.mlp import MLP
from symplectic_bench.problems.mlp_bf16 import MLP_BF16
from symplectic_bench.problems.outlier import OUTLIER
from symplectic_bench.problems.pharmacokinetics import PHARMACOKINETICS
from symplectic_bench.problems.problem import DTYPES, Family, Problem, in_turn
from symplectic_bench.problems.recurrent import RECURRENT
from symplectic_bench.problems.regularized import REGULARIZED
from symplectic_bench.problems.robertson import ROBERTSON
from symplectic_bench.problems.spiral import SPIRAL
from symplectic_bench.problems.stack import STACK
from symplectic_bench.problems.stiff_spiral import STIFF_SPIRAL
from symplectic_bench.problems.three_body import THREE_BODY
from symplectic_bench.problems.unlisted import UNLISTED
from symplectic_bench.problems.users_factory import InvalidProblem
from symplectic_bench.problems.van_der_pol import VAN_DER_POL
from symplectic_bench.problems.white_dwarf import WHITE_DWARF
from symplectic_bench.spec.cell import Cell, is_users_problem

__all__ = ["DTYPES", "PROBLEMS", "Family", "InvalidProblem", "Problem", "build", "in_turn"]


class Problems(dict[str, Family]):
    """The standard problems; any other is a user's own, made by its path `module:factory`."""

    def __missing__(self, name: str) -> Family:
        if not is_users_problem(name):
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
        MLP_BF16,
        CONVOLUTION,
        IRREGULAR,
        SPIRAL,
        VAN_DER_POL,
        OUTLIER,
        LOTKA_VOLTERRA,
        FITZHUGH_NAGUMO,
        WHITE_DWARF,
        COUPLED_OSCILLATORS,
        DOUBLE_PENDULUM,
        LORENZ,
        THREE_BODY,
        ROBERTSON,
        HIRES,
        STIFF_SPIRAL,
        PHARMACOKINETICS,
        MEMORY_FLOW,
        KDV,
        CAHN_HILLIARD,
        ALLEN_CAHN,
        BRUSSELATOR,
        BRUSSELATOR_2D,
        FLOW,
        FLOW_EXACT,
        STACK,
        RECURRENT,
        UNLISTED,
        REGULARIZED,
    )
)


def build(cell: Cell, cache_dir: Path) -> Problem:
    """Return the problem of a cell, in the cell's dtype and on its device."""
    family = PROBLEMS[cell.problem]
    return family.build(cell.sizes_dict, cell.batch, cell.dtype, cell.device, cell.seed, cache_dir)
