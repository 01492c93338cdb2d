"""The output times of generated cases, and which outputs the loss uses."""

TIMES = {
    "last": [0.0, 0.35, 0.8],
    "all": [0.0, 0.25, 0.5, 0.8],
    "dense": [0.0, 0.02, 0.11, 0.2, 0.31, 0.45, 0.5, 0.8],
    "repeated": [0.0, 0.0, 0.4, 0.4, 0.4, 0.8, 0.8],
    "decreasing": [0.8, 0.5, 0.1, 0.0],
    "one": [0.3],
}
STEP_SIZE = 0.3
"""Of fixed steps: three of them, and no output on a free end."""
EVENT_AFTER = 0.5
"""About when events come."""


def output_times(case):
    """Return the times of a case; with an event, the start and a time that gives the direction."""
    times = TIMES[case.outputs]
    if case.event == "none":
        return times
    return [times[0], times[0] - 1.0 if case.outputs == "decreasing" else times[0] + 1.0]
