"""What a contender is: somebody's way of solving a problem and differentiating its loss."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.cell import Cell
from benchmarks.failure import Diverged, publishable
from benchmarks.problems import Problem


@dataclass(frozen=True)
class Counts:
    """What a gradient cost: evaluations of f and of its vector-Jacobian product, and steps of the forward solve.

    A step count is None where the contender does not tell.
    """

    f_calls_forward: int
    f_calls_backward: int
    vjps_forward: int
    vjps_backward: int
    steps_accepted: int | None
    steps_rejected: int | None

    @property
    def floor_calls(self) -> tuple[int, int]:
        """The bare calls that the gradient cannot avoid: f alone, and f with its vector-Jacobian product."""
        vjps = self.vjps_forward + self.vjps_backward
        return max(0, self.f_calls_forward + self.f_calls_backward - vjps), vjps


@dataclass(frozen=True)
class Observation:
    """One gradient, everything noted. Tensors have the cell's dtype; gradient is by y0, then by each parameter.

    replay solves another copy of the problem on the recorded grid by plain operations that autograd follows, giving
    its ys; where that cannot be done it is the reason why.
    """

    loss: float
    final_state: Tensor
    gradient: list[Tensor]
    counts: Counts
    replay: Callable[[Problem], Tensor] | str


@dataclass
class Run:
    """One gradient, nothing noted: forward(), then backward(), which leaves it in the inputs' .grad.

    gives_up tells the exceptions by which the contender's solver says that it cannot go on.
    """

    problem: Problem
    solve: Callable[[], Tensor]
    gives_up: Callable[[Exception], bool]
    loss: Tensor | None = None

    def forward(self) -> Tensor:
        with giving_up(self.gives_up):
            self.loss = loss = self.problem.loss(self.solve())
        return loss

    def backward(self) -> None:
        assert self.loss is not None, "forward() comes first"
        # Let go of the loss, so that autograd may free the graph as it goes.
        loss, self.loss = self.loss, None
        with giving_up(self.gives_up):
            loss.backward()


class Contender(Protocol):
    """gradient and observe take a problem in the cell's dtype on its device; both may raise Diverged."""

    @property
    def name(self) -> str: ...

    def decline(self, cell: Cell) -> str | None:
        """Why this contender cannot do this cell, or None."""
        ...

    def gradient(self, problem: Problem, cell: Cell) -> Run:
        """The bare gradient, for measuring time and memory."""
        ...

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        """The gradient once, with its counts and its grid."""
        ...


class CountedField(nn.Module):
    """A field that counts its calls, and the vector-Jacobian products of what it returned, by phase."""

    def __init__(self, func: nn.Module) -> None:
        super().__init__()
        self.func = func
        self.backward_phase = False
        self.calls = [0, 0]  # forward, backward
        self.vjps = [0, 0]

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls[self.backward_phase] += 1
        value = self.func(t, y)
        if value.requires_grad:
            value.register_hook(self._count_vjp)
        return value

    def _count_vjp(self, grad: Tensor) -> None:
        del grad
        self.vjps[self.backward_phase] += 1

    def counts(self, accepted: int | None, rejected: int | None) -> Counts:
        (forward, backward), (vjps_forward, vjps_backward) = self.calls, self.vjps
        return Counts(forward, backward, vjps_forward, vjps_backward, accepted, rejected)


@contextlib.contextmanager
def giving_up(gives_up: Callable[[Exception], bool]) -> Iterator[None]:
    """Turn the exceptions that gives_up knows into Diverged."""
    try:
        yield
    except Exception as error:
        if not gives_up(error):
            raise
        raise Diverged(publishable(f"{type(error).__name__}: {error}")) from error


def step_size(cell: Cell, t: Tensor) -> float:
    """The size of each of the cell's fixed steps."""
    assert cell.steps is not None, "an adaptive cell has no step size"
    return float(t[-1] - t[0]) / cell.steps


def shared_reason(cell: Cell, adaptive: bool) -> str | None:
    """Why no contender can do the cell: tolerances without an error estimate, or a device that is not there."""
    if cell.rtol is not None and not adaptive:
        return f"{cell.method} has no error estimate, so it takes steps, not tolerances"
    if cell.device == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here"
    return None
