"""The symplectic adjoint method with a fixed number of checkpoints, whatever the number of steps."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from symplectic_adjoint.backward.checkpoints import RecomputedStarts, SelectedStarts
from symplectic_adjoint.backward.kept_steps import StepsFromStarts, transpose_steps
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction, backward_calls
from symplectic_adjoint.backward.schedule import advances
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.memory.byte_size import format_bytes, parse_bytes
from symplectic_adjoint.memory.storage import Offload, check_offload, make_storage, obstacle_of_offload


@dataclass(frozen=True)
class Revolve(Strategy):
    """Keep the starts of some steps and recompute the others from there: memory (c + 1 + s) D + A.

    checkpoints: c, the number of states kept at a time besides y0; or their total size, such as "64 MiB". offload,
    folder: where to keep them, as in Symplectic. Raises ValueError for a number or size too small for one state.

    On a fixed grid the fewest possible steps are recomputed (Griewank and Walther, ACM Trans. Math. Softw. 26, 2000).
    An adaptive solve does not know its number of steps and keeps states by level (Wang, Moin and Iaccarino, SIAM J.
    Sci. Comput. 31, 2009); the backward pass recomputes as few steps as these states allow. 2s - 1 f calls per step in
    the backward pass, and s more for each recomputed step.
    """

    also_called: ClassVar[tuple[str, ...]] = ("RecursiveCheckpointAdjoint", "binomial")
    accumulates: ClassVar[bool] = True
    compiles: ClassVar[bool] = True
    captures: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True

    checkpoints: int | str = 16
    offload: Offload = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.checkpoints, str):
            parse_bytes("Revolve(checkpoints=...)", self.checkpoints)
        elif isinstance(self.checkpoints, bool) or not isinstance(self.checkpoints, int) or self.checkpoints < 1:
            raise ValueError(
                f"Revolve(checkpoints=...) must be a number of states, 1 or more, or a size such as '64 MiB', got "
                f"{self.checkpoints!r}"
            )
        check_offload(self.offload, self.folder)

    @property
    def obstacle_to_users_capture(self) -> str | None:
        return obstacle_of_offload(self.offload)

    def memory_formula(self) -> str:
        return "(c + 1 + s) D + A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction | None:
        if self.offload is not None:
            return None
        s, c = model.stages, self._capacity(model.cost.state_bytes)
        recomputed = max(0, advances(steps, c) - (steps - 1))
        calls = backward_calls(steps, s) + s * recomputed
        return Prediction(steps * s, calls, steps * s, model.peak_bytes(min(max(0, steps - 1), c + 1), 0, 0))

    def keeper(self, given: ForwardPass) -> SelectedStarts:
        capacity = self._capacity(_state_bytes(given.y0))
        return SelectedStarts(capacity, given.problem.total_steps, make_storage(self.offload, self.folder))

    def backward(self, given: BackwardPass) -> Gradients:
        capacity, storage = self._capacity(_state_bytes(given.y0)), make_storage(self.offload, self.folder)
        return transpose_steps(given, StepsFromStarts(given, RecomputedStarts(given, capacity, storage)))

    def _capacity(self, state_bytes: int) -> int:
        """Return the number of states that may be kept; raise ValueError if the size given holds none."""
        if isinstance(self.checkpoints, int):
            return self.checkpoints
        capacity = parse_bytes("Revolve(checkpoints=...)", self.checkpoints) // state_bytes
        if capacity < 1:
            raise ValueError(
                f"Revolve(checkpoints={self.checkpoints!r}) holds no state: one takes "
                f"{format_bytes(state_bytes)}; give at least that"
            )
        return capacity


def _state_bytes(y0: Tensor) -> int:
    return max(1, y0.numel() * y0.element_size())
