"""One gradient computed with nothing recorded, for measuring time and memory."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from symplectic_bench.problems import Problem
from symplectic_bench.spec.failure import Diverged, publishable


class GradientRun(ABC):
    """One gradient: forward(), then backward(), which leaves it in the inputs' .grad."""

    @abstractmethod
    def forward(self) -> object: ...

    @abstractmethod
    def backward(self) -> None: ...

    def complete(self) -> None:
        self.forward()
        self.backward()


@dataclass
class WholeRun:
    """One gradient that cannot be split into forward and backward pass. complete() returns once it is computed."""

    complete: Callable[[], None]


@dataclass
class SolveRun(GradientRun):
    """A solve, then autograd from its loss.

    gives_up tells whether an exception means that the solver cannot continue; such an exception is raised as Diverged.
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
        # Drop the loss, so that autograd can free the graph as it goes.
        loss, self.loss = self.loss, None
        with giving_up(self.gives_up):
            loss.backward()


@contextlib.contextmanager
def giving_up(gives_up: Callable[[Exception], bool]) -> Iterator[None]:
    """Raise Diverged in place of the exceptions that gives_up recognises."""
    try:
        yield
    except Exception as error:
        if not gives_up(error):
            raise
        raise Diverged(publishable(f"{type(error).__name__}: {error}")) from error
