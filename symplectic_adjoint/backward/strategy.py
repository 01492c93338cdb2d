"""What a gradient strategy is: what to keep going forward, and how to come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from symplectic_adjoint.backward.held_graphs import StageGraph
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.solve.problem import Choice, Problem, Trajectory
from symplectic_adjoint.solve.time_loop import Recorder
from symplectic_adjoint.steps.runge_kutta import MakeStep


@dataclass(frozen=True)
class Gradients:
    """dL/dy0, dL/dt (None where t needs none) and dL/dtheta, one entry a parameter, None where f never used it."""

    y0: Tensor | None
    t: Tensor | None
    params: Sequence[Tensor | None]


@dataclass(frozen=True)
class ForwardPass:
    """What a strategy is given to say what is to be kept. with_time: whether dL/dt will be wanted."""

    problem: Problem
    y0: Tensor
    with_time: bool


class Keeper(Recorder, Protocol):
    """A recorder that keeps tensors for the way back.

    `kept` stay until the graph is released; steps says of which steps they are, where they are not of every one: of
    several of one step, the first is its start (which is y0 where that is step 0), and k_1 .. follow.
    `once` and `graphs` are for the first backward pass alone, which frees them as it goes: what they save in f calls
    must not cost memory all the way back.
    """

    @property
    def kept(self) -> Sequence[Tensor]: ...

    @property
    def steps(self) -> Sequence[int]: ...

    @property
    def once(self) -> Sequence[Tensor]: ...

    @property
    def graphs(self) -> Sequence[StageGraph]: ...

    @property
    def choice(self) -> Choice | None:
        """What was chosen, where the strategy leaves it to the keeper."""
        ...


@dataclass(frozen=True)
class BackwardPass:
    """All that a strategy is given to come back with. t is None unless dL/dt is wanted."""

    problem: Problem
    trajectory: Trajectory
    field: Field
    y0: Tensor
    t: Tensor | None
    kept: list[Tensor]
    """Held by nobody else where the graph is not retained: what is taken off the list is freed after its use."""
    steps: Sequence[int]
    once: list[Tensor]
    """Empty in a second backward pass; whoever uses the list empties it."""
    graphs: list[StageGraph]
    """The same. They lead to the parameters themselves."""
    ys: Tensor | None
    """The outputs, for a strategy that says it uses them."""
    grad_ys: Tensor

    def take_starts(self) -> list[Tensor]:
        """y0 and what was kept, in the order of the steps, to be popped from the end."""
        starts = [self.y0, *self.kept]
        self.kept.clear()
        return starts


@runtime_checkable
class OwnSteps(Protocol):
    """A strategy that takes steps of a kind of its own. They end on every output."""

    @property
    def make_step(self) -> MakeStep: ...


@runtime_checkable
class Strategy(Protocol):
    """A way of computing the gradient. Implementations are small frozen dataclasses of their options."""

    exact: ClassVar[bool]
    """Whether the gradient is that of the recorded steps, to rounding."""
    uses_outputs: ClassVar[bool]
    """Whether the way back reads ys."""

    def keeper(self, given: ForwardPass) -> Keeper: ...

    def backward(self, given: BackwardPass) -> Gradients: ...
