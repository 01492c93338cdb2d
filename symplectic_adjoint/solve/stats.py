"""What a solve cost, and what gradient="auto" kept of it."""

from dataclasses import dataclass

from symplectic_adjoint.memory.byte_size import format_bytes


@dataclass(frozen=True)
class Choice:
    """What gradient="auto" kept from the forward pass for the backward pass: the most that its budget allows.

    Of all `steps` steps with `f_calls` f calls: the starts of `starts` steps (y0 included), `stages` of the other
    stages, and the graphs of `graphs` f calls. The rest is recomputed. predicted_peak_bytes: the predicted peak of live
    bytes.
    """

    budget_bytes: int
    predicted_peak_bytes: int
    steps: int
    f_calls: int
    starts: int
    stages: int
    graphs: int

    def __str__(self) -> str:
        everything = self.graphs >= self.f_calls
        kept = "every graph" if everything else f"the graphs of the last {self.graphs} of {self.f_calls} f calls"
        inner = self.f_calls - self.steps
        return (
            f"held {kept}, {self.stages} of {inner} stages besides the starts, and the starts of {self.starts} of "
            f"{self.steps} steps: {'all there is' if everything else 'what saves most f calls'} within "
            f"{format_bytes(self.budget_bytes)} (predicted peak {format_bytes(self.predicted_peak_bytes)})"
        )


@dataclass
class Stats:
    """Counts of a solve. Those of the backward pass grow each time that a backward pass runs.

    A VJP is an f call whose transpose is applied. It is also counted as an f call, unless it is the forward pass's own
    graph that is transposed (`backprop`).
    """

    method: str
    gradient: str
    f_calls_forward: int = 0
    f_calls_backward: int = 0
    vjps_forward: int = 0
    vjps_backward: int = 0
    accepted: int = 0
    rejected: int = 0
    accepted_backward: int = 0
    """Accepted steps of the second solve, which only `continuous` has."""
    choice: Choice | None = None
    """What gradient="auto" made of its budget."""
