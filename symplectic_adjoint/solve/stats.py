"""The counts of a solve, and what gradient="auto" kept of it."""

from dataclasses import dataclass

from symplectic_adjoint.field.stage_solver import StageWork
from symplectic_adjoint.memory.byte_size import format_bytes


@dataclass(frozen=True)
class Choice:
    """The tensors that gradient="auto" kept for the backward pass: as many as its budget allows.

    steps, f_calls: the accepted steps and their f calls. starts: the number of step starts kept, including y0. stages:
    the number of stages kept besides these. graphs: the number of f calls whose graph was kept. The rest is recomputed.
    budget_bytes: the memory budget. predicted_peak_bytes: the predicted peak of live tensors.
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
class Captured:
    """The programs of a solve with capture=True or "auto".

    graphs: whether they are CUDA graphs; elsewhere the same programs are called. recorded: how many this solve and its
    backward passes recorded; the others were recorded by earlier ones. replayed: how often one was run. fallback: why
    the solve, or a backward pass, ran without programs; None if none did.
    """

    graphs: bool
    recorded: int = 0
    replayed: int = 0
    fallback: str | None = None

    def __str__(self) -> str:
        kind = "CUDA graphs" if self.graphs else "programs that are called, without a CUDA graph"
        found = f"{self.recorded} {kind} recorded, {self.replayed} runs"
        return found if self.fallback is None else f"{found}; without them: {self.fallback}"


@dataclass
class Stats:
    """The counts of a solve. Each backward pass adds to those of the backward pass.

    A VJP is an f call whose transpose is applied. The backward pass also counts it as an f call, unless the transpose
    uses a graph of the forward pass (`backprop`, held graphs).
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
    """Accepted steps of the second solve, which only gradient="continuous" has."""
    stiff_at: float | None = None
    """The first time at which steps were found to be limited by the stability of an explicit method, not by the
    tolerance: a larger tolerance would save no steps there, an implicit method would. None if they were not, and where
    it is not looked at: in the first 50 steps, in steps on a fixed grid, in those whose error a captured program
    measures, and in the second solve of gradient="continuous"."""
    choice: Choice | None = None
    """The tensors that gradient="auto" kept within its budget."""
    capture: Captured | None = None
    """The programs that ran, with capture=True or "auto"."""
    stages: StageWork | None = None
    """What solving the implicit stages of the forward pass took; None if the method is explicit."""
    stages_backward: StageWork | None = None
    """The same of the last backward pass."""
