"""The strategy of a gradient: what the forward pass keeps, and how the backward pass uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, cast

from torch import Tensor

from symplectic_adjoint.backward.held_graphs import StageGraph
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.backward.recomputed_values import EndOfSolve, RecomputedValues, StepValues
from symplectic_adjoint.backward.state_sketch import Marks
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.stats import Choice
from symplectic_adjoint.solve.time_loop import Recorder
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.kind import MakeStep
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass(frozen=True)
class Gradients:
    """dL/dy0, dL/dt (None if not needed) and dL/dtheta: one entry per parameter, None for one that f never used."""

    y0: Tensor | None
    t: Tensor | None
    params: Sequence[Tensor | None]


@dataclass(frozen=True)
class ForwardPass:
    """The input of a strategy's forward pass. with_time: whether dL/dt will be needed."""

    problem: Problem
    y0: Tensor
    with_time: bool


class Keeper(Recorder, Protocol):
    """A recorder that keeps tensors for the backward pass.

    `kept`: tensors that stay until the graph is released. `steps`: the step that each of them belongs to; empty if
    every step keeps the same. Of several tensors of one step, the first is its start, followed by k_1, k_2, ...; the
    start of step 0 is y0, and is not kept. `last_stages`, the k_i of the last step, and `graphs` are for the first
    backward pass only, which frees them as it goes: they save f calls without taking memory until the end.
    `marks` are what the forward pass is recognised by.
    """

    @property
    def kept(self) -> Sequence[Tensor]: ...

    @property
    def steps(self) -> Sequence[int]: ...

    @property
    def last_stages(self) -> Sequence[Tensor]: ...

    @property
    def graphs(self) -> Sequence[StageGraph]: ...

    @property
    def marks(self) -> Marks | None:
        """The marks of the forward pass, None without a step."""
        ...

    @property
    def choice(self) -> Choice | None:
        """The keeper's choice of what to keep; None if the strategy leaves it no choice."""
        ...


@dataclass(frozen=True)
class BackwardPass:
    """The input of a strategy's backward pass."""

    problem: Problem
    trajectory: Trajectory
    field: Field
    y0: Tensor
    t: Tensor | None
    """None unless dL/dt is needed."""
    kept: list[Tensor]
    """Nothing else refers to these unless the graph is retained: a tensor removed from the list is freed after use."""
    steps: Sequence[int]
    last_stages: list[Tensor]
    """Empty in a second backward pass. A strategy that uses the list empties it."""
    graphs: list[StageGraph]
    """Likewise. They lead to the parameters themselves, not to their aliases."""
    ys: Tensor | None
    """The outputs, if the strategy has `uses_outputs`."""
    grad_ys: Tensor
    values: RecomputedValues | None
    """Compares what is recomputed with the forward pass; None if the strategy does not `check`."""

    def take_starts(self) -> list[Tensor]:
        """Return y0 and the kept tensors in step order, to be popped from the end; empty `kept`."""
        starts = [self.y0, *self.kept]
        self.kept.clear()
        return starts

    def values_of_step(
        self, n: int, *, kept: int = 0, end: Tensor | None = None, end_slope: Tensor | None = None
    ) -> StepValues | None:
        """Return the comparison of step n, as RecomputedValues.of_step does; None if nothing is compared."""
        return None if self.values is None else self.values.of_step(n, kept=kept, end=end, end_slope=end_slope)

    def values_of_solve(self) -> Recorder | None:
        """Return a recorder that compares the end of a repeated solve; None if nothing is compared."""
        return None if self.values is None else EndOfSolve(self.values)

    def settle(self, flag: Tensor | None = None) -> bool:
        """Raise FunctionChanged if a value that was compared shows that func changed since the forward pass.

        Return whether flag is true, a tensor with one entry, which is read together with these values.
        """
        if self.values is not None:
            return self.values.settle(flag)
        return flag is not None and bool(flag)


@dataclass(frozen=True)
class Strategy:
    """A way of computing the gradient.

    Subclasses are small frozen dataclasses of their options, one per file in `gradients/`. Facts about a gradient are
    stated there, by overriding the attributes and methods below; the rest of the library asks for the fact, never for
    the class.

    check: whether the values that the backward pass recomputes are compared with those of the forward pass, which
        raises FunctionChanged if func changed in between.
    """

    check: bool = field(default=True, kw_only=True)

    also_called: ClassVar[tuple[str, ...]] = ()
    """Its names elsewhere, which are not accepted but understood."""
    exact: ClassVar[bool] = True
    """Whether it is the gradient of the recorded steps, to rounding error."""
    on_callers_graph: ClassVar[bool] = False
    """Whether the solve runs on the caller's autograd graph; `keeper` and `backward` are then never called."""
    uses_outputs: ClassVar[bool] = False
    """Whether the backward pass reads ys."""
    accumulates: ClassVar[bool] = False
    """Whether it sums lam and dL/dtheta step by step, so that `accumulate=` applies."""
    compiles: ClassVar[bool] = False
    """Whether its f calls can be compiled, so that `compile=True` applies."""
    captures: ClassVar[bool] = False
    """Whether its steps can be captured, so that `capture=True` applies."""
    takes_implicit: ClassVar[bool] = False
    """Whether it works with implicit methods."""
    second_solve: ClassVar[bool] = False
    """Whether the backward pass solves a differential equation, with its own steps and callbacks."""
    crosses_jumps: ClassVar[bool] = True
    """Whether its steps can restart where f jumps."""

    @property
    def make_step(self) -> MakeStep:
        """The kind of step that the gradient takes with a method's tableau."""
        return Step

    @property
    def own_steps(self) -> bool:
        """Whether its steps are not the method's Runge-Kutta steps.

        Such steps have no dense output and end on every output; ys differ from the method's by an error of the size of
        the tolerance, and exactness refers to these steps.
        """
        return self.make_step is not Step

    @property
    def exact_for_method(self) -> bool:
        """Whether it is the gradient of the method's own steps, to rounding."""
        return self.exact and not self.own_steps

    @property
    def own_tableau(self) -> ButcherTableau | None:
        """The only method that it works with; None if it takes any."""
        return None

    @property
    def obstacle_to_compile(self) -> str | None:
        """The option that rules out `compile=True`, in words; None if there is none."""
        return None

    @property
    def obstacle_to_capture(self) -> str | None:
        """The option that rules out `capture=True`, in words; None if there is none."""
        return None

    @property
    def obstacle_to_implicit(self) -> str | None:
        """The option that rules out implicit methods, in words; None if there is none."""
        return None

    @property
    def obstacle_to_users_capture(self) -> str | None:
        """What keeps a user from capturing a solve with it, and what to do instead; None if nothing does."""
        return None

    def memory_formula(self) -> str:
        """Return its memory in words, with N, s, D (bytes of a state) and A (bytes of the graph of one f call)."""
        raise NotImplementedError

    def predicted(self, model: MemoryModel, steps: int) -> Prediction | None:
        """Return the predicted cost of `steps` accepted steps without dense outputs; None if there is no prediction."""
        del model, steps
        return None

    def resolved(self, given: ForwardPass) -> tuple["Strategy", Choice | None]:
        """Return the strategy to use for this solve, and the choice that it makes, if any."""
        del given
        return self, None

    def keeper(self, given: ForwardPass) -> Keeper:
        """Return the recorder of the forward pass."""
        raise NotImplementedError

    def backward(self, given: BackwardPass) -> Gradients:
        """Return the gradient, computed from what the keeper kept."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Return the call that creates it, without default values: 'Symplectic(graphs=50)'."""
        values = [(x.name, getattr(self, x.name), x.default) for x in fields(cast(Any, self))]
        changed = ", ".join(f"{name}={value!r}" for name, value, default in values if value != default)
        return f"{type(self).__name__}({changed})"
