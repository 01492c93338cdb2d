"""What the programs of a step need of f, and of step control."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.cotangent_scale import CotangentScale
from symplectic_adjoint.field.resolution import Resolution


class Measures(Protocol):
    """The norms of step control, over a tolerance that is on the device."""

    def norms_of(
        self, errors: list[Tensor], y: Tensor, y_end: Tensor, roundings: list[Tensor] | None, /
    ) -> list[Tensor]:
        """Return the norm of each error estimate over the tolerance."""
        ...

    def first_step_numbers(
        self, y0: Tensor, f0: Tensor, longest: Tensor, second: Callable[[Tensor], Tensor], /
    ) -> list[Tensor]:
        """Return a trial step size, and the sizes of f and of its change there."""
        ...


MakeMeasures = Callable[[Sequence[Tensor]], Measures]
"""(rtol and atol, on the device) -> how to measure with them."""


class ProgramField(Protocol):
    """What the programs need of f."""

    cotangent_scale: CotangentScale | None
    compiled: CompiledSteps | None

    @property
    def program_leaves(self) -> Sequence[Tensor]:
        """The tensors to which the graphs of f lead: the parameters, their stand-ins, or aliases."""
        ...

    @property
    def leaves_beside_aliases(self) -> Sequence[Tensor]:
        """The leaves that aliases replace, which func may reach in other ways too; empty without aliases."""
        ...

    def aliased(self) -> AbstractContextManager[None]:
        """Return a context in which aliases take the place of the parameters, where modules and variables hold them."""
        ...

    @property
    def resolution(self) -> Resolution | None:
        """The resolution of f's values, if that is coarser than the state's."""
        ...

    def evaluate(self, t: Tensor, y: Tensor) -> Tensor:
        """Return f(t, y), checked but not searched."""
        ...

    def pull(
        self, outputs: Sequence[Tensor | GradientEdge], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Return the cotangents of inputs, as torch.autograd.grad does."""
        ...
