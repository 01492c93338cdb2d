"""The planning of checkpoints, against dynamic programming and against checkpoint-schedules."""

from functools import cache

import checkpoint_schedules
import pytest

from symplectic_adjoint.backward.schedule import OnlineCheckpoints, advances, checkpoint_steps, repetitions, stride

MOST = 60


@cache
def fewest(steps, capacity):
    """The recursion that defines the optimum: go k on, keep that state, reverse what is beyond it, then the rest."""
    if steps <= 1:
        return 0
    if capacity == 0:
        return steps * (steps - 1) // 2
    return min(k + fewest(steps - k, capacity - 1) + fewest(k, capacity) for k in range(1, steps))


@cache
def by_strides(steps, capacity):
    if steps <= 1:
        return 0
    k = stride(steps, capacity)
    assert 1 <= k < steps
    return steps * (steps - 1) // 2 if capacity == 0 else k + by_strides(steps - k, capacity - 1) + by_strides(k, capacity)


@pytest.mark.parametrize("capacity", range(MOST))
def test_strides_take_as_few_steps_again_as_can_be(capacity):
    for steps in range(1, MOST + 1):
        assert advances(steps, capacity) == fewest(steps, capacity) == by_strides(steps, capacity)


@pytest.mark.parametrize("capacity", range(MOST))
def test_as_checkpoint_schedules_plans_it(capacity):
    """Its checkpoints are ours and the start; it counts the call that each reversed step makes as well."""
    for steps in range(capacity + 2, MOST + 1):
        taken = 0
        for action in checkpoint_schedules.Revolve(steps, capacity + 1):
            if isinstance(action, checkpoint_schedules.Forward):
                taken += action.n1 - action.n0
            if isinstance(action, checkpoint_schedules.EndReverse):
                break
        assert taken == advances(steps, capacity) + steps


def taken_again(steps, capacity, kept):
    """Steps taken on the way there and back when these starts are kept on the way there."""
    ends = [*kept, steps - 1]  # the last step's start is at hand when the way back begins
    gaps = [end - start for start, end in zip([0, *kept], ends, strict=True)]
    return steps - 1 + sum(advances(gap, capacity - i) for i, gap in enumerate(gaps) if gap)


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 30])
def test_starts_kept_on_the_way_there_belong_to_the_optimum(capacity):
    for steps in range(1, 400):
        kept = list(checkpoint_steps(steps, capacity))
        assert len(kept) <= capacity and kept == sorted(set(kept)) and all(0 < n < steps for n in kept)
        assert taken_again(steps, capacity, kept) == advances(steps, capacity) if steps > 1 else kept == []


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 16, 30])
def test_without_knowing_the_number_no_step_is_taken_again_more_often_than_it_must(capacity):
    levels, kept, worst = OnlineCheckpoints(capacity), [], 1.0
    for steps in range(3, 800):
        place = levels.admit()
        if place is not None:
            del kept[place]
        kept.append(steps - 2)
        assert len(kept) <= capacity and kept == sorted(set(kept))
        least = repetitions(steps, capacity)
        for i, (start, end) in enumerate(zip([0, *kept], [*kept, steps - 1], strict=True)):
            assert end - start < 2 or repetitions(end - start, capacity - i) <= least
        worst = max(worst, taken_again(steps, capacity, kept) / advances(steps, capacity))
    assert worst <= 1.5
