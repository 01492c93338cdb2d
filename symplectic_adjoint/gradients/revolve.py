"""The symplectic adjoint method with a fixed number of checkpoints, however many steps there are."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from symplectic_adjoint.backward.checkpoints import RetakenStarts, SomeStarts
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients
from symplectic_adjoint.gradients.symplectic import KeptStarts, swept
from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes
from symplectic_adjoint.memory.storage import Offload, check_offload, storage


@dataclass(frozen=True)
class Revolve:
    """Keeps the starts of some steps, and takes steps again from there: memory (c + s) D + A.

    checkpoints: c, how many states are kept beside y0 at a time; or their size, "64 MiB". offload, folder: where, as
    for Symplectic. On a fixed grid as few steps are taken again as can be (Griewank and Walther, 2000); adaptive solves
    keep states by levels, because they do not know how many steps there will be (Wang, Moin and Iaccarino, 2009), and
    are reversed as cheaply as from these states can be. 2s - 1 f calls a step, and s for each step taken again.
    """

    checkpoints: int | str = 16
    offload: Offload = None
    folder: str | None = None
    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.checkpoints, str):
            parse_bytes("Revolve(checkpoints=...)", self.checkpoints)
        elif isinstance(self.checkpoints, bool) or not isinstance(self.checkpoints, int) or self.checkpoints < 1:
            raise ValueError(
                f"Revolve(checkpoints=...) must be a number of states, 1 or more, or a size such as '64 MiB', got "
                f"{self.checkpoints!r}"
            )
        check_offload(self.offload, self.folder)

    def keeper(self, given: ForwardPass) -> SomeStarts:
        return SomeStarts(self._room(given.y0), given.problem.total_steps, storage(self.offload, self.folder))

    def backward(self, given: BackwardPass) -> Gradients:
        there = storage(self.offload, self.folder)
        return swept(given, KeptStarts(given, RetakenStarts(given, self._room(given.y0), there)))

    def _room(self, y0: Tensor) -> int:
        """How many states may be kept."""
        if isinstance(self.checkpoints, int):
            return self.checkpoints
        state = max(1, y0.numel() * y0.element_size())
        room = parse_bytes("Revolve(checkpoints=...)", self.checkpoints) // state
        if room < 1:
            raise ValueError(
                f"Revolve(checkpoints={self.checkpoints!r}) holds no state: one takes {format_bytes(state)}, give that "
                "at least"
            )
        return room
