"""The interface of a contender: a way of solving a problem and differentiating its loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import GradientRun, WholeRun
from symplectic_bench.contenders.observation import NoGradient, Observation
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell


class Contender(Protocol):
    """A way of computing gradients.

    framework: holds the states; "jax" does not survive a fork, and only the memory of "torch" is watched. compiles:
    whether the first call for each problem compiles or captures it, and so takes longer than the others. captures:
    whether it then keeps buffers for
    later calls. gradient and observe take a problem in the cell's dtype, on its device. Both may raise Diverged.
    """

    @property
    def name(self) -> str: ...

    @property
    def gradients(self) -> Sequence[str]: ...

    @property
    def framework(self) -> Literal["torch", "numpy", "jax"]: ...

    @property
    def compiles(self) -> bool: ...

    @property
    def captures(self) -> bool: ...

    def decline(self, cell: Cell) -> str | None:
        """Return why this contender cannot do the cell on any machine, or None."""
        ...

    def missing(self) -> str | None:
        """Return what this contender needs that is not installed here, or None."""
        ...

    def gradient(self, problem: Problem, cell: Cell) -> GradientRun | WholeRun:
        """Return the bare gradient, for measuring time and memory."""
        ...

    def observe(self, problem: Problem, cell: Cell) -> Observation | NoGradient:
        """Compute the gradient once, with its counts and its grid."""
        ...


@dataclass(frozen=True)
class Solved:
    """A solve to be differentiated. recount returns its cost, including the backward pass once that has run."""

    ys: Tensor
    recount: Callable[[], Counts]


class Trainer(Protocol):
    """A contender whose gradient is autograd's through a solve, so that networks can be trained with it.

    remark: a note on its rows, or "".
    """

    @property
    def name(self) -> str: ...

    @property
    def remark(self) -> str: ...

    def integrate(self, problem: Problem, cell: Cell) -> Solved:
        """Solve the problem's func over its times. Its loss is not evaluated."""
        ...

    def gives_up(self, error: Exception) -> bool:
        """Return whether the solver raises this, forward or backward, when it cannot continue."""
        ...

    def load(self) -> object:
        """Import what the solver needs."""
        ...
