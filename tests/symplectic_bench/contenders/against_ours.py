"""The distance of a contender's gradient from ours."""

from dataclasses import replace

import pytest
import torch

from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.problems import build
from symplectic_bench.run.processes import Limits

ROUNDING = 1e-12
"""Of a gradient in float64, over some hundred f calls summed in another order."""
SPAWNED = Limits(timeout_s=120, spawned=True)


def installed(contender):
    """Return the contender, or skip the test and say what to install."""
    if reason := CONTENDERS[contender].missing():
        pytest.skip(reason)
    return CONTENDERS[contender]


def observed(cell, cache_dir):
    observation = CONTENDERS[cell.contender].observe(build(cell, cache_dir), cell)
    return {
        "loss": observation.loss,
        "gradient": [g.tolist() for g in observation.gradient],
        "steps_accepted": observation.counts.steps_accepted,
    }


def all_observed(cells, cache_dir):
    for cell in cells:
        yield observed(cell, cache_dir)


def as_float64(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def distance(theirs, cell, cache_dir):
    """Of a contender's gradient from our symplectic one at the same accuracy, relative."""
    mine = observed(replace(cell, contender="ours", gradient="symplectic"), cache_dir)
    assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    return relative_error(*([as_float64(g) for g in one["gradient"]] for one in (theirs, mine)))
