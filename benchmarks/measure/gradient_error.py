"""How wrong a gradient is, twice: as the gradient of what was computed, and as the one that was wanted."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cell import Cell
from benchmarks.contenders import CONTENDERS, NoGradient, Observation
from benchmarks.failure import Diverged, diagnose
from benchmarks.oracle import equal_steps, gradient, relative_error, replay_as
from benchmarks.problems import Problem, build
from benchmarks.reference import load_reference
from symplectic_adjoint import METHODS

ROUNDING = {"float32": 1e-6, "float64": 1e-14}
"""Stands for rtol and atol where fixed steps leave nothing but rounding between two solvers of one method."""

DISAGREES_BEYOND = 100.0


def measure_gradient_error(cell: Cell, cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the counts and the loss, then each error, so that the costly last one cannot lose the others."""
    problem = build(cell, cache_dir)
    observation = CONTENDERS[cell.contender].observe(problem, cell)
    if isinstance(observation, NoGradient):
        why = dict.fromkeys(("error_true_reason", "error_discrete_reason"), observation.reason)
        yield {**asdict(observation.counts), **why}
        return
    _require_finite(observation)
    yield {**asdict(observation.counts), "loss": observation.loss}
    yield true_error(observation, cell, cache_dir)
    yield forward_error(observation, problem, cell, cache_dir)
    yield discrete_error(observation, problem)


def true_error(observation: Observation, cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """Relative to the converged gradient of the continuous problem, whose own error bar goes with it."""
    reference = load_reference(cell, cache_dir)
    if isinstance(reference, str):
        return {"error_true_reason": reference}
    return {
        "error_true": relative_error(observation.gradient, reference.gradient),
        "error_true_bar": reference.bar,
    }


def discrete_error(observation: Observation, problem: Problem) -> dict[str, Any]:
    """Relative to autograd through the recorded steps, in float64."""
    if isinstance(observation.replay, str):
        return {"error_discrete_reason": observation.replay}
    twin = problem.to(torch.float64)
    try:
        expected = gradient(twin, observation.replay(twin))
    except Exception as error:
        status, reason = diagnose(error)
        return {"error_discrete_reason": f"the replay failed ({status}): {reason}"}
    return {
        "error_discrete": relative_error(observation.gradient, expected),
        "error_discrete_oracle": "float64",
    }


def forward_error(observation: Observation, problem: Problem, cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """How many tolerances the final state is off, in the root mean square over its components.

    That is the norm in which solvers keep to a tolerance: a single component near zero may be off by far more.
    With tolerances it is compared with the converged solution. With fixed steps the method's own error is no fault:
    it is compared with the same steps of the same kind by textbook, in float64, in units of ROUNDING.
    """
    if cell.rtol is not None and cell.atol is not None:
        reference = load_reference(cell, cache_dir)
        if isinstance(reference, str):
            return {}
        expected, rtol, atol = reference.final_state, cell.rtol, cell.atol
    else:
        expected, rtol, atol = (
            _textbook_final_state(problem, cell),
            ROUNDING[cell.dtype],
            ROUNDING[cell.dtype],
        )
    found = observation.final_state.to("cpu", torch.float64)
    off = ((found - expected) / (atol + rtol * expected.abs())).square().mean().sqrt().item()
    return {"forward_error": off, "forward_disagrees": not off <= DISAGREES_BEYOND}


@torch.no_grad()
def _textbook_final_state(problem: Problem, cell: Cell) -> Tensor:
    assert cell.steps is not None, "an adaptive cell has no steps of its own"
    twin = problem.to(torch.float64)
    return replay_as(cell.gradient, METHODS[cell.method], twin, equal_steps(problem.t, cell.steps))[-1]


def _require_finite(observation: Observation) -> None:
    if not math.isfinite(observation.loss):
        raise Diverged(f"the loss is {observation.loss}")
    if not all(bool(g.isfinite().all()) for g in observation.gradient):
        raise Diverged("the gradient is not finite")
