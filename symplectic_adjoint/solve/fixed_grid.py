"""Fixed grids: the times at which steps must end, and the steps that the options define."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise

from symplectic_adjoint.errors import TooManySteps
from symplectic_adjoint.solve.grid import CONSTANT, FREE, StepPlan
from symplectic_adjoint.solve.options import Options
from symplectic_adjoint.solve.step_sequences import even_count, even_steps, pins_on, steps_between, unbounded_steps

Pin = tuple[float, int]
"""A time at which a step must end, and its index in t: CONSTANT if it is not an entry of t, FREE if it is infinite."""


def pins_of(options: Options, times: Sequence[float]) -> list[Pin]:
    """Return the pins of a solve over `times`, in order.

    A step that ends on an output at a jump is pinned to the jump, a constant: the time of the output can move, that of
    the jump cannot.
    """
    if len(times) == 1:
        return []
    last = len(times) - 1
    low, high = sorted((times[0], times[last]))
    pins = {stop: CONSTANT for stop in options.stops if low < stop < high}
    for j in range(1, last):
        if times[j] not in options.jumps and (options.land or times[j] in pins):
            pins[times[j]] = j
    pins[times[last]] = last if math.isfinite(times[last]) else FREE
    return sorted(pins.items(), reverse=times[last] < times[0])


def fixed_plans(options: Options, times: Sequence[float]) -> Iterable[StepPlan]:
    """Return the steps of a fixed grid over `times`; raise TooManySteps if there are more than max_num_steps."""
    pins = pins_of(options, times)
    if options.step_size is not None:
        plans = _even_plans(options, [(times[0], FREE), *pins], options.step_size)
    else:
        grid = _grid(options.points or times, times, pins)
        _limit(options, len(grid) - 1)
        constant = {time: j for time, j in pins if j == CONSTANT}
        given = pins_on(grid, times)
        plans = steps_between(grid, [constant.get(end, j) for end, j in zip(grid[1:], given, strict=True)])
    if not options.jumps and not options.perturb:
        return plans
    return (_opened(options, plan) for plan in plans)


def _even_plans(options: Options, pins: Sequence[Pin], step_size: float) -> Iterator[StepPlan]:
    """Yield steps of one size from pin to pin, where the first pin is the start."""
    finite = [(a, b, j) for (a, _), (b, j) in pairwise(pins) if math.isfinite(b)]
    _limit(options, sum(even_count(a, b, step_size) for a, b, _ in finite))
    plans = chain.from_iterable(even_steps(a, b, step_size, pinned_to=j) for a, b, j in finite)
    end = pins[-1][0]
    if math.isfinite(end):
        return plans
    return chain(plans, unbounded_steps(pins[-2][0], math.copysign(step_size, end)))


def _opened(options: Options, plan: StepPlan) -> StepPlan:
    """Mark the ends at which f is evaluated just inside the step."""
    perturb, jumps = options.perturb, options.jumps
    return replace(plan, open_start=perturb or plan.t in jumps, open_end=perturb or plan.t_end in jumps)


def _limit(options: Options, steps: int) -> None:
    if steps > options.max_num_steps:
        raise TooManySteps(f"the grid has {steps} steps, more than max_num_steps={options.max_num_steps}")


def _grid(points: Sequence[float], times: Sequence[float], pins: Sequence[Pin]) -> list[float]:
    """Return the grid points within `times`, with both ends and every pin, in the direction of time."""
    low, high = sorted((times[0], times[-1]))
    inside = {p for p in points if low < p < high} | {times[0], times[-1], *(time for time, _ in pins)}
    return sorted(inside, reverse=math.copysign(1.0, times[-1] - times[0]) < 0.0)
