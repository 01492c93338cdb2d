"""What a contender is: somebody's way of solving a problem and differentiating its loss."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from symplectic_adjoint import METHODS
from symplectic_bench.oracles.recorded_grid import Replayed, equal_steps, replay
from symplectic_bench.problems import PROBLEMS, Problem, in_turn
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged, publishable


@dataclass(frozen=True)
class Counts:
    """What a gradient cost: evaluations of f and of its vector-Jacobian product, and steps of the forward solve.

    A count is None where the contender does not tell. steps_backward are those accepted by a second solve, backwards.
    """

    f_calls_forward: int | None
    f_calls_backward: int | None
    vjps_forward: int | None
    vjps_backward: int | None
    steps_accepted: int | None
    steps_rejected: int | None
    steps_backward: int | None = None

    @property
    def f_calls(self) -> int | None:
        """Forward and backward together."""
        return _sum(self.f_calls_forward, self.f_calls_backward)

    @property
    def floor_calls(self) -> tuple[int, int] | None:
        """The bare calls that the gradient cannot avoid: f alone, and f with its vector-Jacobian product."""
        calls, vjps = self.f_calls, _sum(self.vjps_forward, self.vjps_backward)
        return None if calls is None or vjps is None else (max(0, calls - vjps), vjps)


def _sum(*numbers: int | None) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def total(counts: Sequence[Counts]) -> Counts:
    """Of several solves."""
    return Counts(**{f.name: _sum(*(getattr(one, f.name) for one in counts)) for f in fields(Counts)})


@dataclass(frozen=True)
class Observation:
    """One gradient, everything noted. Tensors have the cell's dtype; gradient is by y0, then by each parameter.

    replay solves another copy of the problem on the recorded grid by plain operations that autograd follows, giving
    its ys; where that cannot be done it is the reason why. Two that took equal steps of one kind have equal `steps`,
    where these are told.
    """

    loss: float
    final_state: Tensor
    gradient: list[Tensor]
    counts: Counts
    replay: Callable[[Replayed], Any] | str
    steps: Hashable = None


@dataclass(frozen=True)
class Solved:
    """A solve to be differentiated. recount tells what it cost, its backward pass too once that has run."""

    ys: Tensor
    recount: Callable[[], Counts]


@dataclass(frozen=True)
class NoGradient:
    """What a contender shows that computes no gradient: what it cost all the same, and the reason."""

    counts: Counts
    reason: str


class Run(ABC):
    """One gradient, nothing noted: forward(), then backward(), which leaves it in the inputs' .grad."""

    @abstractmethod
    def forward(self) -> object: ...

    @abstractmethod
    def backward(self) -> None: ...

    def complete(self) -> None:
        self.forward()
        self.backward()


@dataclass
class WholeRun:
    """One gradient that cannot be parted into a forward and a backward pass: complete() waits until it is there."""

    complete: Callable[[], None]


@dataclass
class SolveRun(Run):
    """A solve, and autograd from its loss.

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
    """gradient and observe take a problem in the cell's dtype on its device; both may raise Diverged.

    framework: "jax" does not survive a fork, and its memory is not torch's. compiles: the first call of every problem
    translates it, which is not what the others take.
    """

    @property
    def name(self) -> str: ...

    @property
    def gradients(self) -> Sequence[str]: ...

    @property
    def framework(self) -> Literal["torch", "jax"]: ...

    @property
    def compiles(self) -> bool: ...

    def decline(self, cell: Cell) -> str | None:
        """Why this contender can do this cell nowhere, or None."""
        ...

    def missing(self) -> str | None:
        """What this contender needs and is not here, or None."""
        ...

    def gradient(self, problem: Problem, cell: Cell) -> Run | WholeRun:
        """The bare gradient, for measuring time and memory."""
        ...

    def observe(self, problem: Problem, cell: Cell) -> Observation | NoGradient:
        """The gradient once, with its counts and its grid."""
        ...


class Trainer(Protocol):
    """A contender whose gradient is autograd's of a solve, so that networks can be trained with it.

    remark: what its rows say beside their numbers, "" where there is nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def remark(self) -> str: ...

    def integrate(self, problem: Problem, cell: Cell) -> Solved:
        """Solve func over the problem's times. Its loss is not asked."""
        ...

    def gives_up(self, error: Exception) -> bool:
        """Whether the solver says by this, forward or backward, that it cannot go on."""
        ...

    def load(self) -> object:
        """Import what the solver needs."""
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


Replay = Callable[[Replayed], Any] | str
"""A replay as an Observation has it."""


class Peer(ABC):
    """Gradients of somebody else's in torch: f's calls are counted from outside."""

    framework: Literal["torch"] = "torch"
    compiles: bool = False
    remark: str = ""

    @abstractmethod
    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        """ys of func from the problem's y0 over its times, differentiable."""

    @abstractmethod
    def gives_up(self, error: Exception) -> bool:
        """Whether their solver says by this that it cannot go on."""

    def witness(self, func: nn.Module, cell: Cell) -> CountedField:
        """func, watched."""
        del cell
        return CountedField(func)

    def recount(self, witness: Any, cell: Cell) -> Counts:
        """What one solve cost, by its witness, once the loss has been differentiated. Only fixed steps are known."""
        return witness.counts(cell.steps, None if cell.steps is None else 0)

    @abstractmethod
    def replay(self, witness: Any, problem: Problem, cell: Cell) -> Replay: ...

    def steps(self, witness: Any) -> Hashable:
        """See Observation."""
        del witness

    @abstractmethod
    def load(self) -> object:
        """Import what is theirs, so that it is not imported while time and memory are measured."""

    def gradient(self, problem: Problem, cell: Cell) -> SolveRun:
        self.load()

        def solve() -> Tensor:
            return in_turn(problem, lambda part: self.solve(part.func, part, cell))

        return SolveRun(problem, solve, self.gives_up)

    def integrate(self, problem: Problem, cell: Cell) -> Solved:
        witness = self.witness(problem.func, cell)
        ys = self.solve(witness, problem, cell)

        def begin_backward(grad: Tensor) -> None:
            del grad
            witness.backward_phase = True

        if ys.requires_grad:
            ys.register_hook(begin_backward)
        return Solved(ys, lambda: self.recount(witness, cell))

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        witnesses: list[CountedField] = []

        def solve(part: Problem) -> Tensor:
            witnesses.append(self.witness(part.func, cell))
            return self.solve(witnesses[-1], part, cell)

        with giving_up(self.gives_up):
            ys = in_turn(problem, solve)
            loss = problem.loss(ys)
            for witness in witnesses:
                witness.backward_phase = True
            loss.backward()
        return Observation(
            loss=loss.item(),
            final_state=ys[-1].detach(),
            gradient=problem.gradient(),
            counts=total([self.recount(witness, cell) for witness in witnesses]),
            replay=replay_in_turn([self.replay(witness, problem, cell) for witness in witnesses]),
            steps=self.steps(witnesses[0]) if len(witnesses) == 1 else None,
        )


def replay_in_turn(replays: Sequence[Replay]) -> Replay:
    """That of a problem whose components have these."""
    known = [one for one in replays if not isinstance(one, str)]
    if len(known) < len(replays):
        return next(one for one in replays if isinstance(one, str))

    def replay(twin: Replayed) -> Any:
        turns = iter(known)
        return in_turn(twin, lambda part: next(turns)(part))

    return replay


@contextlib.contextmanager
def giving_up(gives_up: Callable[[Exception], bool]) -> Iterator[None]:
    """Turn the exceptions that gives_up knows into Diverged."""
    try:
        yield
    except Exception as error:
        if not gives_up(error):
            raise
        raise Diverged(publishable(f"{type(error).__name__}: {error}")) from error


def not_installed(package: str, how: str) -> str | None:
    """Why a package cannot be used, and how to get it; None where it can."""
    return None if find_spec(package) is not None else f"{package} is not installed: {how}"


def unknown_gradient(contender: Contender, cell: Cell) -> str | None:
    """Why the contender has not the cell's gradient, or None."""
    if cell.gradient in contender.gradients:
        return None
    return f"{contender.name} has no gradient {cell.gradient!r}; it has {', '.join(contender.gradients)}"


def replay_of_equal_steps(cell: Cell, problem: Problem) -> Replay:
    """The replay of a peer that tells nothing of its steps, where they are known without it: they are equal, and
    there is no output between them, for which everybody has a formula of his own."""
    steps = cell.steps
    if steps is None:
        return f"{cell.contender} does not tell its steps"
    if len(problem.t) > 2:
        return f"{cell.contender} has its own way to outputs between steps"
    return lambda twin: replay(METHODS[cell.method], twin, equal_steps(twin.t, steps))


def step_size(cell: Cell, t: Tensor) -> float:
    """The size of each of the cell's fixed steps."""
    assert cell.steps is not None, "an adaptive cell has no step size"
    return float(t[-1] - t[0]) / cell.steps


def several_fields(cell: Cell) -> str | None:
    """Why a contender that takes one field cannot do the cell, or None."""
    return "its field is a stack of several" if PROBLEMS[cell.problem].stacked else None


def shared_reason(cell: Cell, adaptive: bool) -> str | None:
    """Why no contender can do the cell: tolerances without an error estimate, or a device that is not there."""
    if cell.rtol is not None and not adaptive:
        return f"{cell.method} has no error estimate, so it takes steps, not tolerances"
    if cell.device == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here"
    return None
