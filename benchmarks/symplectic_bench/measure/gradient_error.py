"""The two errors of a gradient: as the gradient of the computed solution, and as that of the continuous problem."""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.contenders.observation import NoGradient, Observation
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.large_stack import on_large_stack
from symplectic_bench.oracles.recorded_grid import (
    Replayed,
    equal_steps,
    gradient,
    relative_error,
    replay_as,
    why_not_replayed,
)
from symplectic_bench.problems import Problem, build, in_turn
from symplectic_bench.references import load_reference
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged, diagnose

ROUNDING = {"bfloat16": 1e-3, "float32": 1e-6, "float64": 1e-14}
"""rtol and atol for fixed steps, with which two solvers of one method differ only by rounding."""

DISAGREES_BEYOND = 100.0
"""Tolerances by which a final state may be off."""

MAX_SIZE_IN_DIGITS = 1_000_000
"""State x parameters x f calls up to which steps are replayed in fifty digits ..."""

MAX_CALLS_IN_DIGITS = 2_000
"""... and f calls, each of which takes a few milliseconds and stays in memory, ..."""

MAX_OUTPUTS_IN_DIGITS = 5_000
"""... and numbers in the outputs: an interpolated one takes a millisecond."""

MANY_STEPS = 10_000
"""Beyond as many steps the graph of a counted solve is freed on a large stack."""

ReplayedGradients = dict[Hashable, Any]
"""Gradients of replays, by the arithmetic and the steps that were replayed."""


def measure_gradient_errors(cells: Sequence[Cell], cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Measure a group's errors in one process, in which steps that several cells took are replayed only once.

    For each cell yield {"cell": index, "begins": True}, the values of measure_gradient_error with the index, and
    {"cell": index, "ends": True}; for a failed cell also its status and reason. If the process dies, the cell that
    began and did not end killed it.
    """
    replayed: ReplayedGradients = {}
    for i, cell in enumerate(cells):
        yield {"cell": i, "begins": True}
        try:
            for value in measure_gradient_error(cell, cache_dir, replayed):
                yield {"cell": i, **value}
        except Exception as error:
            status, reason = diagnose(error)
            yield {"cell": i, "status": status.value, "reason": reason}
        yield {"cell": i, "ends": True}


def measure_gradient_error(
    cell: Cell, cache_dir: Path, replayed: ReplayedGradients | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the counts and the loss, then each error, so that nothing is lost if the costly last one fails.

    Raise Diverged if the loss or the gradient is not finite.
    """
    problem = build(cell, cache_dir)
    observe = partial(CONTENDERS[cell.contender].observe, problem, cell)
    observation = on_large_stack(observe) if (cell.steps or 0) > MANY_STEPS else observe()
    if isinstance(observation, NoGradient):
        why = dict.fromkeys(("error_true_reason", "error_discrete_reason"), observation.reason)
        yield {**asdict(observation.counts), **why}
        return
    _require_finite(observation)
    yield {**asdict(observation.counts), "loss": observation.loss}
    yield true_error(observation, cell, cache_dir)
    yield forward_error(observation, problem, cell, cache_dir)
    yield discrete_error(observation, problem, replayed)


def true_error(observation: Observation, cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """Return the relative error against the reference and its error bar, or why there is no usable reference."""
    reference = load_reference(cell, cache_dir)
    if isinstance(reference, str):
        return {"error_true_reason": reference}
    return {
        "error_true": reference.error_of(observation.gradient),
        "error_true_bar": reference.bar,
        "error_true_reference": reference.source,
    }


def discrete_error(
    observation: Observation, problem: Problem, replayed: ReplayedGradients | None = None
) -> dict[str, Any]:
    """Return the relative error against autograd through the recorded steps, or why there is none.

    The replay is in float64, or in fifty digits if the problem is small. `replayed` holds the gradients of earlier
    replays; this one is added.
    """
    if isinstance(observation.replay, str):
        return {"error_discrete_reason": observation.replay}
    replayed = {} if replayed is None else replayed
    in_digits = problem.y0.dtype == torch.float64 and not observation.in_float64 and _is_small(observation, problem)
    steps = None if observation.steps is None else (in_digits, observation.steps)
    if steps not in replayed:
        try:
            found = (_gradient_in_digits if in_digits else _gradient_in_float64)(observation.replay, problem)
        except Exception as error:
            status, reason = diagnose(error)
            return {"error_discrete_reason": f"the replay failed ({status}): {reason}"}
        replayed |= {steps: found} if steps is not None else {}
    else:
        found = replayed[steps]
    error = (_error_in_digits if in_digits else relative_error)(observation.gradient, found)
    return {
        "error_discrete": error,
        "error_discrete_oracle": "50 digits" if in_digits else "float64",
    }


def _is_small(observation: Observation, problem: Problem) -> bool:
    f_calls = observation.counts.f_calls_forward
    if problem.moving_t is not None:
        return False  # the times of a replay in digits are constants
    numbers_out = problem.y0.numel() * (len(problem.t) - 1)
    if (
        problem.formula is None
        or f_calls is None
        or f_calls > MAX_CALLS_IN_DIGITS
        or numbers_out > MAX_OUTPUTS_IN_DIGITS
    ):
        return False
    return problem.y0.numel() * max(1, sum(p.numel() for p in problem.parameters)) * f_calls <= MAX_SIZE_IN_DIGITS


def _gradient_in_float64(replay: Callable[[Replayed], Any], problem: Problem) -> Any:
    twin = problem.to(torch.float64, problem.y0.device)
    return gradient(twin, replay(twin))


def _gradient_in_digits(replay: Callable[[Replayed], Any], problem: Problem) -> Any:
    from symplectic_bench.oracles.twin import DigitsTwin  # imported only when needed

    twin = DigitsTwin(problem.to(torch.float64))
    return twin.gradient(twin.loss(replay(twin)))


def _error_in_digits(found: Sequence[Tensor], expected: Any) -> float:
    from symplectic_bench.oracles.twin import error_in_digits

    return error_in_digits([x.cpu() for x in found], expected)


def forward_error(observation: Observation, problem: Problem, cell: Cell, cache_dir: Path) -> dict[str, Any]:
    """Return the error of the final state in units of the tolerance, as a root mean square over its components.

    Solvers control their error in that norm; a single component near zero may be off by far more. With tolerances, the
    state is compared with the converged solution. With fixed steps, whose discretisation error is not the solver's
    fault, it is compared with a float64 replay of the same steps, in units of ROUNDING.
    """
    if cell.rtol is not None and cell.atol is not None:
        reference = load_reference(cell, cache_dir)
        if isinstance(reference, str):
            return {}
        expected, rtol, atol = reference.final_state, cell.rtol, cell.atol
    elif why_not_replayed(METHODS[cell.method], problem.y0):
        return {}
    else:
        expected = _textbook_final_state(problem, cell)
        rtol = atol = ROUNDING[observation.precision or cell.dtype]
    found = observation.final_state.to("cpu", torch.float64)
    off = ((found - expected) / (atol + rtol * expected.abs())).square().mean().sqrt().item()
    return {"forward_error": off, "forward_disagrees": not off <= DISAGREES_BEYOND}


@torch.no_grad()
def _textbook_final_state(problem: Problem, cell: Cell) -> Tensor:
    assert cell.steps is not None, "an adaptive cell has no fixed number of steps"
    twin = problem.to(torch.float64, problem.y0.device)
    grid, kind = equal_steps(problem.t, cell.steps), gradient_record(cell.gradient).steps
    return in_turn(twin, lambda part: replay_as(kind, METHODS[cell.method], part, grid))[-1].cpu()


def _require_finite(observation: Observation) -> None:
    if not math.isfinite(observation.loss):
        raise Diverged(f"the loss is {observation.loss}")
    if not all(bool(g.isfinite().all()) for g in observation.gradient):
        raise Diverged("the gradient is not finite")
