"""A library as its user sees it: one method for each thing that a probe may ask for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from symplectic_bench.features.answer import Lacks


@dataclass(frozen=True)
class Library:
    """A column of the table.

    entry: what is called, as the heading says it. package: imported for it. how: the command that installs it.
    distribution: the name under which pip knows it. lacks: reasons, by probe, why there is nothing to run.
    """

    name: str
    entry: str
    package: str
    distribution: str
    how: str
    lacks: Mapping[str, str] = field(default_factory=dict)

    def programs(self) -> Mapping[str, Callable[[], Any]]:
        """Return this library's own programs by probe, instead of the ones in PyTorch."""
        return {}

    def solve(self, func: Any, y0: Any, t: Any, **asked: Any) -> Any:
        """Return the states at the times t, those of y0 first: (len(t), *y0.shape).

        asked: rtol and atol (1e-8 and 1e-10 by default), steps (equal ones, from t[0] to t[-1]), or an option by
        torchdiffeq's name.

        Raises:
            Lacks: if there is no such argument.
        """
        raise NotImplementedError

    def event(self, func: Any, y0: Any, t0: Any, event_fn: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        """Return the time at which event_fn(t, y) is zero, and the states at the start and then."""
        raise Lacks("no events")

    def dense(self, func: Any, y0: Any, t0: Any, t1: Any) -> Callable[[Any], Any]:
        """Return the solution as a function of time."""
        raise Lacks("no solution as a function of time")

    def calls(self, func: Any, y0: Any, t: Any) -> int:
        """Return the number of calls of func that the library itself reports."""
        raise Lacks("no counts")

    def stiff(self, func: Any, y0: Any, t: Any) -> Any:
        """Return the states at the times t, by an implicit method with adaptive steps."""
        raise Lacks("no implicit method with adaptive steps")

    def split(self, explicit: Any, implicit: Any, y0: Any, t: Any) -> Any:
        """Return the states at the times t, by an implicit-explicit method."""
        raise Lacks("no implicit-explicit method")

    def multistep(self, func: Any, y0: Any, t: Any) -> Any:
        """Return the states at the times t, by a multistep method."""
        raise Lacks("no multistep method")

    def reversible(self, func: Any, y0: Any, t: Any) -> Any:
        """Return the states at the times t, by a reversible method whose gradient keeps no states."""
        raise Lacks("no reversible method with its gradient")

    def per_sample(self, func: Any, y0: Any, t: Any) -> Any:
        """Return the states (batch, len(t), ...) of a batch whose samples have times of their own, t (batch, times)."""
        raise Lacks("one t for the whole batch")


def only(asked: Mapping[str, Any], *names: str) -> None:
    """Check that nothing else is asked for.

    Raises:
        Lacks: if it is, with the argument that the library does not have.
    """
    for name in asked:
        if name not in names:
            raise Lacks(f"no argument for {name}")
