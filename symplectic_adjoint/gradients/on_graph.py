"""f for steps each of whose calls is to have a graph."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from symplectic_adjoint.errors import Place
from symplectic_adjoint.field import Field, Linearization, Time


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The graph of f at stage `stage` of step `step`."""

    graph: Linearization
    step: int
    stage: int


class OnGraph:
    """f, every call of which is on a graph of its own, that `note` is told of with f's value."""

    code: None = None

    def __init__(self, f: Field, note: Callable[[Linearization, Tensor], None], *, with_time: bool):
        self._f, self._note, self._with_time = f, note, with_time
        self.f_calls = f.f_calls

    def __call__(self, t: Time, y: Tensor) -> Tensor:
        one = self._f.linearize(t, y, with_time=self._with_time, with_value=True)
        self.f_calls, k = self._f.f_calls, one.k
        assert k is not None
        one.k = None  # whoever needs it longer than the step keeps it
        self._note(one, k)
        return k

    def beside(self, t: Time, direction: float) -> Time:
        return self._f.beside(t, direction)

    def restart(self) -> None:
        self._f.restart()

    def place(self, index: int) -> Place:
        return self._f.place(index)
