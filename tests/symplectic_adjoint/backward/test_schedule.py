"""Checkpoint schedules, compared with dynamic programming and with the package checkpoint-schedules."""

from functools import cache

import checkpoint_schedules
import pytest

from symplectic_adjoint.backward.schedule import OnlineCheckpoints, advances, checkpoint_steps, repetitions, stride

MOST = 60


@cache
def fewest(steps, capacity):
    """Return the optimum by its recursion: advance k steps, keep that state, reverse the rest, then these k steps."""
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
    if capacity == 0:
        return steps * (steps - 1) // 2
    return k + by_strides(steps - k, capacity - 1) + by_strides(k, capacity)


@pytest.mark.parametrize("capacity", range(MOST))
def test_strides_need_the_fewest_forward_steps(capacity):
    for steps in range(1, MOST + 1):
        assert advances(steps, capacity) == fewest(steps, capacity) == by_strides(steps, capacity)


@pytest.mark.parametrize("capacity", range(MOST))
def test_the_number_of_forward_steps_is_that_of_checkpoint_schedules(capacity):
    """Its checkpoints include the start, and it also counts the evaluation of each reversed step."""
    for steps in range(capacity + 2, MOST + 1):
        taken = 0
        for action in checkpoint_schedules.Revolve(steps, capacity + 1):
            if isinstance(action, checkpoint_schedules.Forward):
                taken += action.n1 - action.n0
            if isinstance(action, checkpoint_schedules.EndReverse):
                break
        assert taken == advances(steps, capacity) + steps


def forward_steps(steps, capacity, kept):
    """Return the number of forward steps in both passes if the forward pass keeps these starts."""
    ends = [*kept, steps - 1]  # the backward pass already has the start of the last step
    gaps = [end - start for start, end in zip([0, *kept], ends, strict=True)]
    return steps - 1 + sum(advances(gap, capacity - i) for i, gap in enumerate(gaps) if gap)


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 30])
def test_starts_kept_in_the_forward_pass_are_optimal(capacity):
    for steps in range(1, 400):
        kept = list(checkpoint_steps(steps, capacity))
        assert len(kept) <= capacity and kept == sorted(set(kept)) and all(0 < n < steps for n in kept)
        assert forward_steps(steps, capacity, kept) == advances(steps, capacity) if steps > 1 else kept == []


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 8, 16, 30])
def test_with_an_unknown_number_of_steps_no_step_is_taken_more_often_than_necessary(capacity):
    online, kept, worst = OnlineCheckpoints(capacity), [], 1.0
    for steps in range(3, 800):
        evicted = online.admit()
        if evicted is not None:
            del kept[evicted]
        kept.append(steps - 2)
        assert len(kept) <= capacity and kept == sorted(set(kept))
        least = repetitions(steps, capacity)
        for i, (start, end) in enumerate(zip([0, *kept], [*kept, steps - 1], strict=True)):
            assert end - start < 2 or repetitions(end - start, capacity - i) <= least
        worst = max(worst, forward_steps(steps, capacity, kept) / advances(steps, capacity))
    assert worst <= 1.5
