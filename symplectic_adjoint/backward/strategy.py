"""The strategy of a gradient: what the forward pass keeps, and how the backward pass uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor

from symplectic_adjoint.backward.held_graphs import StageGraph
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.stats import Choice
from symplectic_adjoint.solve.time_loop import Recorder
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.runge_kutta import MakeStep, Step


@dataclass(frozen=True)
class Gradients:
    """dL/dy0, dL/dt (None where t needs none) and dL/dtheta, one entry a parameter, None where f never used it."""

    y0: Tensor | None
    t: Tensor | None
    params: Sequence[Tensor | None]


@dataclass(frozen=True)
class ForwardPass:
    """The solve that a strategy is to keep something of. with_time: whether dL/dt will be needed."""

    problem: Problem
    y0: Tensor
    with_time: bool


class Keeper(Recorder, Protocol):
    """A recorder that keeps tensors for the backward pass.

    `kept` tensors stay until the graph is released. `steps` names the step that each belongs to, and is empty where
    every step has one: of several tensors of one step the first is its start (y0, and not kept, for step 0), followed
    by k_1, k_2, ... `once` and `graphs` serve the first backward pass only, which frees them as it goes: they save f
    calls and must not cost memory until the end.
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
        """What was chosen to be kept, where the strategy leaves that to the keeper."""
        ...


@dataclass(frozen=True)
class BackwardPass:
    """Everything that a strategy's backward pass works from."""

    problem: Problem
    trajectory: Trajectory
    field: Field
    y0: Tensor
    t: Tensor | None
    """None unless dL/dt is needed."""
    kept: list[Tensor]
    """Held by nothing else unless the graph is retained: a tensor taken off the list is freed after its use."""
    steps: Sequence[int]
    once: list[Tensor]
    """Empty in a second backward pass. The strategy that uses the list empties it."""
    graphs: list[StageGraph]
    """Likewise. They lead to the parameters themselves, not to their aliases."""
    ys: Tensor | None
    """The outputs, for a strategy with `uses_outputs`."""
    grad_ys: Tensor

    def take_starts(self) -> list[Tensor]:
        """Return y0 and the kept tensors in the order of the steps, to be popped from the end."""
        starts = [self.y0, *self.kept]
        self.kept.clear()
        return starts


class Strategy:
    """A way of computing the gradient.

    Subclasses are small frozen dataclasses of their options, one a file in `gradients/`. What is true of a gradient is
    stated there, by overriding what follows; the rest of the library asks for the fact and never for the class.
    """

    exact: ClassVar[bool] = True
    """Whether it is the gradient of the recorded steps, to rounding."""
    on_callers_graph: ClassVar[bool] = False
    """Whether the solve runs under the caller's own autograd; `keeper` and `backward` are then never called."""
    uses_outputs: ClassVar[bool] = False
    """Whether the backward pass reads ys."""
    accumulates: ClassVar[bool] = False
    """Whether it sums step by step, so that `accumulate=` applies."""
    compiles: ClassVar[bool] = False
    """Whether its f calls can be compiled, so that `compile=True` applies."""
    second_solve: ClassVar[bool] = False
    """Whether the backward pass solves an equation of its own, with steps and callbacks of its own."""
    crosses_jumps: ClassVar[bool] = True
    """Whether its steps can start anew where f jumps."""

    @property
    def make_step(self) -> MakeStep:
        """The kind of step that it takes with a method."""
        return Step

    @property
    def own_steps(self) -> bool:
        """Whether its steps differ from the method's: they have no dense output and end on every output.

        ys differ too, then, by an error of the tolerance, and exactness refers to these steps.
        """
        return self.make_step is not Step

    @property
    def own_tableau(self) -> ButcherTableau | None:
        """The one method that it works with; None where it takes any."""
        return None

    @property
    def obstacle_to_compile(self) -> str | None:
        """What among its options rules out `compile=True`, in words."""
        return None

    def memory_formula(self) -> str:
        """Return the memory in terms of N, s, D (bytes of a state) and A (bytes of the graph of one f)."""
        raise NotImplementedError

    def predicted(self, model: MemoryModel, steps: int) -> Prediction | None:
        """Return the predicted f calls and peak bytes of `steps` accepted steps; None where nothing is known."""
        del model, steps
        return None

    def resolved(self, given: ForwardPass) -> tuple["Strategy", Choice | None]:
        """Return the strategy to use for this solve, and the choice that it stands for, if any."""
        del given
        return self, None

    def keeper(self, given: ForwardPass) -> Keeper:
        """Return the recorder of the forward pass."""
        raise NotImplementedError

    def backward(self, given: BackwardPass) -> Gradients:
        """Return the gradient, from what the keeper kept."""
        raise NotImplementedError

    def __str__(self) -> str:
        """The call that makes it: 'Symplectic(graphs=50)'."""
        values = [(x.name, getattr(self, x.name), x.default) for x in fields(cast(Any, self))]
        changed = ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)
        return f"{type(self).__name__}({changed})"
