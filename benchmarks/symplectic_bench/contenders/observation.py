"""One gradient computed with everything recorded, for measuring its errors and counting its cost."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.oracles.recorded_grid import Replayed, equal_steps, replay, why_not_replayed
from symplectic_bench.problems import Problem, in_turn
from symplectic_bench.spec.cell import Cell

Replay = Callable[[Replayed], Any] | str
"""A function that solves a copy of the problem on the recorded grid by plain operations that autograd can follow.

It returns ys. If that cannot be done, it is a string that says why.
"""


@dataclass(frozen=True)
class Observation:
    """One gradient with everything that is known about it.

    final_state and gradient have the cell's dtype; gradient is with respect to y0, then to each parameter.
    steps: equal for two observations that took the same steps of the same kind; None if the steps are unknown.
    in_float64: whether the steps can be replayed in no other arithmetic.
    precision: the dtype in which states are kept, if it is lower than the cell's.
    """

    loss: float
    final_state: Tensor
    gradient: list[Tensor]
    counts: Counts
    replay: Replay
    steps: Hashable = None
    in_float64: bool = False
    precision: str | None = None


@dataclass(frozen=True)
class NoGradient:
    """The observation of a contender that computes no gradient: its cost, and the reason."""

    counts: Counts
    reason: str


def replay_in_turn(replays: Sequence[Replay]) -> Replay:
    """Return the replay of a problem from those of its components."""
    known = [one for one in replays if not isinstance(one, str)]
    if len(known) < len(replays):
        return next(one for one in replays if isinstance(one, str))

    def replay(twin: Replayed) -> Any:
        turns = iter(known)
        return in_turn(twin, lambda part: next(turns)(part))

    return replay


def replay_of_equal_steps(cell: Cell, problem: Problem) -> Replay:
    """Return the replay for a peer that does not report its steps, if they are known anyway.

    They must be fixed, and so equal, without outputs between them: every library has its own interpolation formula.
    """
    steps = cell.steps
    if steps is None:
        return f"{cell.contender} does not report its steps"
    if len(problem.t) > 2:
        return f"{cell.contender} interpolates outputs between steps by its own formula"
    if reason := why_not_replayed(METHODS[cell.method], problem.y0):
        return reason
    return lambda twin: replay(METHODS[cell.method], twin, equal_steps(twin.t, steps))
