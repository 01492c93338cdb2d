"""What a gradient strategy is: what to keep going forward, and how to come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from symplectic_adjoint.field import Field
from symplectic_adjoint.loop import Recorder
from symplectic_adjoint.problem import Problem, Trajectory


@dataclass(frozen=True)
class Gradients:
    """dL/dy0, dL/dt (None where t needs none) and dL/dtheta, one entry a parameter, None where f never used it."""

    y0: Tensor | None
    t: Tensor | None
    params: Sequence[Tensor | None]


class Keeper(Recorder, Protocol):
    """A recorder that keeps tensors for the way back.

    `kept` stay until the graph is released. `once` are for the first backward pass alone, which frees
    them as it goes: what they save in f calls must not cost memory all the way back.
    """

    @property
    def kept(self) -> Sequence[Tensor]: ...

    @property
    def once(self) -> Sequence[Tensor]: ...


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
    once: list[Tensor]
    """Empty in a second backward pass; whoever uses the list empties it."""
    ys: Tensor | None
    """The outputs, for a strategy that says it uses them."""
    grad_ys: Tensor

    def take_starts(self) -> list[Tensor]:
        """y0 and what was kept, in the order of the steps, to be popped from the end."""
        starts = [self.y0, *self.kept]
        self.kept.clear()
        return starts


@runtime_checkable
class Strategy(Protocol):
    """A way of computing the gradient. Implementations are small frozen dataclasses of their options."""

    exact: ClassVar[bool]
    """Whether the gradient is that of the recorded steps, to rounding."""
    uses_outputs: ClassVar[bool]
    """Whether the way back reads ys."""

    def keeper(self, problem: Problem) -> Keeper: ...

    def backward(self, given: BackwardPass) -> Gradients: ...
