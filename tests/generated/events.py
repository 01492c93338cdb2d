"""The event functions of generated cases."""

import torch

from tests.generated.times import EVENT_AFTER, TIMES
from tests.oracle import flatten


def no_event(case):
    del case
    return None


def smooth(case):
    """Cross zero within 0.1 of EVENT_AFTER from the start, by t and the state."""
    due, _ = due_time(case)

    def event_fn(t, y):
        whole = flatten(y)
        whole = whole.real.sum() if whole.is_complex() else whole.sum()
        return t - due + 0.1 * torch.sin(whole)

    return event_fn


def jump(case):
    """Change sign at a time without being zero anywhere."""
    due, direction = due_time(case)
    return lambda t, y: torch.where(direction * (t - due) > 0.0, -1.0, 1.0)


def due_time(case):
    """Return the time about which the event comes, and the direction of time."""
    times = TIMES[case.outputs]
    direction = -1.0 if case.outputs == "decreasing" else 1.0
    return times[0] + direction * EVENT_AFTER, direction


EVENT_FUNCTIONS = {"none": no_event, "smooth": smooth, "jump": jump, "jump aside": jump}
