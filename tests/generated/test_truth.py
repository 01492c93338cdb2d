"""The generator's truth agrees with torchdiffeq, which shares no code with it, where both take the same steps."""

from dataclasses import replace

import pytest
import torch

from symplectic_adjoint.solve.grid import Grid
from tests.generated.case import PASSES, draw
from tests.generated.changes import CHANGES
from tests.generated.closures import CLOSURES
from tests.generated.judgement import run
from tests.generated.outcome import Outcome
from tests.generated.solvers import Torchdiffeq

OF_BOTH = {"euler": "euler", "midpoint": "midpoint", "rk38": "rk4"}
NEVER_RIGHT = ("own step", "data assigned")
"""After these plain autograd raises, or computes something else."""


class TorchdiffeqOnItsSteps(Torchdiffeq):
    """torchdiffeq with a fixed method, whose steps go from each time to the next."""

    def __init__(self, case):
        super().__init__(case)
        self.grids = []

    def __call__(self, func, y, t, event_fn):
        times, n = t.detach().double(), len(t) - 1
        sigma = torch.ones(n + 1, dtype=torch.float64)
        self.grids.append(Grid(times[:-1], times.diff(), torch.arange(1, n + 1), torch.arange(-1, n), sigma))
        return super().__call__(func, y, t, event_fn)


@pytest.mark.parametrize("closure", CLOSURES)
def test_the_truth_of_each_kind_is_torchdiffeqs_gradient_through_the_same_steps(closure):
    kind = CLOSURES[closure]
    changes = [name for name, change in CHANGES.items() if change.applies(kind) and name not in NEVER_RIGHT]
    passes = [x for x in PASSES if kind.encodes or not x.startswith("upstream")]
    for n in range(max(len(changes), len(passes))):
        case = replace(
            draw(n), closure=closure, change=changes[n % len(changes)], passes=passes[(n + n // 9) % len(passes)],
            stepping="grid t", event="none", method=list(OF_BOTH)[n % 3], gradient="backprop", autocast=False,
            dtype=("float64", "complex128")[n // 2 % 2], outputs=("all", "last", "dense", "decreasing")[n % 4],
        )  # fmt: skip
        outcome = run(case, TorchdiffeqOnItsSteps)
        assert outcome == Outcome("right"), f"{case}: {outcome}"
