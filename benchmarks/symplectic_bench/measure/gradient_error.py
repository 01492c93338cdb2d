"""How wrong a gradient is, twice: as the gradient of what was computed, and as the one that was wanted."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.contenders.observation import NoGradient, Observation
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.oracles.recorded_grid import Replayed, equal_steps, gradient, relative_error, replay_as
from symplectic_bench.problems import Problem, build, in_turn
from symplectic_bench.references import load_reference
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged, diagnose

ROUNDING = {"float32": 1e-6, "float64": 1e-14}
"""Stands for rtol and atol where fixed steps leave nothing but rounding between two solvers of one method."""

DISAGREES_BEYOND = 100.0

SMALL = 1_000_000
"""State x parameters x f calls up to which steps are taken again in fifty digits ..."""

MOST_CALLS_IN_DIGITS = 2_000
"""... and f calls, each of which takes some milliseconds there and stays in memory, ..."""

MOST_OUTPUTS_IN_DIGITS = 5_000
"""... and numbers in outputs: one that is interpolated takes a millisecond."""


Known = dict[Hashable, Any]
"""Gradients by the recorded steps that they are of, in whatever arithmetic they are."""


def measure_gradient_errors(cells: Sequence[Cell], cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Those of a whole group in one process, which goes once more through steps that several of them took but once.

    Yield {"cell": index, "begins": True}, what measure_gradient_error yields with the index, and {"cell", "ends"}; for
    one that fails its status and the reason. An index that began and did not end is the one that took the process down.
    """
    known: Known = {}
    for i, cell in enumerate(cells):
        yield {"cell": i, "begins": True}
        try:
            for value in measure_gradient_error(cell, cache_dir, known):
                yield {"cell": i, **value}
        except Exception as error:
            status, reason = diagnose(error)
            yield {"cell": i, "status": status.value, "reason": reason}
        yield {"cell": i, "ends": True}


def measure_gradient_error(cell: Cell, cache_dir: Path, known: Known | None = None) -> Iterator[dict[str, Any]]:
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
    yield discrete_error(observation, problem, known)


def true_error(observation: Observation, cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """Relative to the converged gradient of the continuous problem, whose own error bar goes with it."""
    reference = load_reference(cell, cache_dir)
    if isinstance(reference, str):
        return {"error_true_reason": reference}
    return {
        "error_true": reference.error_of(observation.gradient),
        "error_true_bar": reference.bar,
        "error_true_reference": reference.source,
    }


def discrete_error(observation: Observation, problem: Problem, known: Known | None = None) -> dict[str, Any]:
    """Relative to autograd through the recorded steps, in float64; in fifty digits where the problem is small.

    known keeps gradients of steps for those who took the same.
    """
    if isinstance(observation.replay, str):
        return {"error_discrete_reason": observation.replay}
    known = {} if known is None else known
    in_digits = problem.y0.dtype == torch.float64 and _is_small(observation, problem)
    steps = None if observation.steps is None else (in_digits, observation.steps)
    if steps not in known:
        try:
            found = (_gradient_in_digits if in_digits else _gradient_in_float64)(observation.replay, problem)
        except Exception as error:
            status, reason = diagnose(error)
            return {"error_discrete_reason": f"the replay failed ({status}): {reason}"}
        known |= {steps: found} if steps is not None else {}
    else:
        found = known[steps]
    error = (_error_in_digits if in_digits else relative_error)(observation.gradient, found)
    return {
        "error_discrete": error,
        "error_discrete_oracle": "50 digits" if in_digits else "float64",
    }


def _is_small(observation: Observation, problem: Problem) -> bool:
    f_calls = observation.counts.f_calls_forward
    numbers_out = problem.y0.numel() * (len(problem.t) - 1)
    if (
        problem.formula is None
        or f_calls is None
        or f_calls > MOST_CALLS_IN_DIGITS
        or numbers_out > MOST_OUTPUTS_IN_DIGITS
    ):
        return False
    return problem.y0.numel() * max(1, sum(p.numel() for p in problem.parameters)) * f_calls <= SMALL


def _gradient_in_float64(replay: Callable[[Replayed], Any], problem: Problem) -> Any:
    twin = problem.to(torch.float64)
    return gradient(twin, replay(twin))


def _gradient_in_digits(replay: Callable[[Replayed], Any], problem: Problem) -> Any:
    from symplectic_bench.oracles.twin import DigitsTwin  # only what is small pays for it

    twin = DigitsTwin(problem)
    return twin.gradient(twin.loss(replay(twin)))


def _error_in_digits(found: Sequence[Tensor], expected: Any) -> float:
    from symplectic_bench.oracles.twin import error_in_digits

    return error_in_digits(found, expected)


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
    grid, kind = equal_steps(problem.t, cell.steps), gradient_record(cell.gradient).steps
    return in_turn(twin, lambda part: replay_as(kind, METHODS[cell.method], part, grid))[-1]


def _require_finite(observation: Observation) -> None:
    if not math.isfinite(observation.loss):
        raise Diverged(f"the loss is {observation.loss}")
    if not all(bool(g.isfinite().all()) for g in observation.gradient):
        raise Diverged("the gradient is not finite")
