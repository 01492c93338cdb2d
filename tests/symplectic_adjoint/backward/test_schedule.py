"""The planning of checkpoints, against dynamic programming and against checkpoint-schedules."""

from functools import cache

import checkpoint_schedules
import pytest

from symplectic_adjoint.backward.schedule import OnlineCheckpoints, advances, checkpoint_steps, repetitions, stride

MOST = 60


@cache
def fewest(steps, room):
    """Minimise over k: advance k steps, keep that state, reverse the steps after it, then the rest."""
    if steps <= 1:
        return 0
    if room == 0:
        return steps * (steps - 1) // 2
    return min(k + fewest(steps - k, room - 1) + fewest(k, room) for k in range(1, steps))


@cache
def by_strides(steps, room):
    if steps <= 1:
        return 0
    k = stride(steps, room)
    assert 1 <= k < steps
    return steps * (steps - 1) // 2 if room == 0 else k + by_strides(steps - k, room - 1) + by_strides(k, room)


@pytest.mark.parametrize("room", range(MOST))
def test_strides_recompute_the_fewest_steps_possible(room):
    for steps in range(1, MOST + 1):
        assert advances(steps, room) == fewest(steps, room) == by_strides(steps, room)


@pytest.mark.parametrize("room", range(MOST))
def test_checkpoint_schedules_plans_as_many_steps(room):
    """Its checkpoints are ours and the start; it counts the call that each reversed step makes as well."""
    for steps in range(room + 2, MOST + 1):
        taken = 0
        for action in checkpoint_schedules.Revolve(steps, room + 1):
            if isinstance(action, checkpoint_schedules.Forward):
                taken += action.n1 - action.n0
            if isinstance(action, checkpoint_schedules.EndReverse):
                break
        assert taken == advances(steps, room) + steps


def steps_taken(steps, room, kept):
    """Return the steps of both passes if the forward pass keeps these starts."""
    ends = [*kept, steps - 1]  # the last step's start is still in memory when the backward pass begins
    gaps = [end - start for start, end in zip([0, *kept], ends, strict=True)]
    return steps - 1 + sum(advances(gap, room - i) for i, gap in enumerate(gaps) if gap)


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 30])
def test_starts_kept_in_the_forward_pass_belong_to_the_optimum(room):
    for steps in range(1, 400):
        kept = list(checkpoint_steps(steps, room))
        assert len(kept) <= room and kept == sorted(set(kept)) and all(0 < n < steps for n in kept)
        assert steps_taken(steps, room, kept) == advances(steps, room) if steps > 1 else kept == []


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 16, 30])
def test_with_an_unknown_number_of_steps_none_is_recomputed_more_often_than_necessary(room):
    levels, kept, worst = OnlineCheckpoints(room), [], 1.0
    for steps in range(3, 800):
        place = levels.admit()
        if place is not None:
            del kept[place]
        kept.append(steps - 2)
        assert len(kept) <= room and kept == sorted(set(kept))
        least = repetitions(steps, room)
        for i, (start, end) in enumerate(zip([0, *kept], [*kept, steps - 1], strict=True)):
            assert end - start < 2 or repetitions(end - start, room - i) <= least
        worst = max(worst, steps_taken(steps, room, kept) / advances(steps, room))
    assert worst <= 1.5
