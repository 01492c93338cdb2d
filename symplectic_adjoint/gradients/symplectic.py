"""The symplectic adjoint method: the exact gradient with one f call on the graph at a time."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from symplectic_adjoint.backward.checkpoints import KeptStarts, LastGraphs, Stages, StartsAndLastStages
from symplectic_adjoint.backward.held_graphs import first_step_on_graph
from symplectic_adjoint.backward.kept_steps import StepsFromStages, StepsFromStarts, transpose_steps
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction, backward_calls
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.memory.storage import Offload, check_offload, make_storage, obstacle_of_offload


@dataclass(frozen=True)
class Symplectic(Strategy):
    """Keep the states at the steps, and transpose one f call at a time.

    Matsubara, Miyatake and Yaguchi (NeurIPS 2021), Algorithms 1 and 2, in the form of steps/transpose.py.

    keep: "steps" keeps the state at every step and recomputes the stages of each step: memory (N + s) D + A, and 2s - 1
        f calls per step in the backward pass (s in the last of several steps, whose stages the first backward pass
        still has).
        "stages" keeps every stage: memory N s D + A, and s f calls per step.
    graphs: hold the graphs of the last `graphs` f calls until the first backward pass. Each takes A + D and saves up to
        two f calls (one with keep="stages"). With math.inf, time and memory are those of backpropagation.
    offload: "cpu" keeps the tensors in host memory, "disk" in files in `folder` (by default the system's temporary
        folder) that are removed when the process ends, even by a crash.

    Raises ValueError for any other value of these options.
    """

    also_called: ClassVar[tuple[str, ...]] = ("symplectic_adjoint",)
    accumulates: ClassVar[bool] = True
    compiles: ClassVar[bool] = True
    captures: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True

    keep: Literal["steps", "stages"] = "steps"
    graphs: float = 0
    offload: Offload = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.keep not in ("steps", "stages"):
            raise ValueError(f"Symplectic(keep=...) must be 'steps' or 'stages', got {self.keep!r}")
        if isinstance(self.graphs, bool) or not isinstance(self.graphs, int | float) or not self.graphs >= 0:
            raise ValueError(f"Symplectic(graphs=...) must be a number of f calls, 0 or more, got {self.graphs!r}")
        check_offload(self.offload, self.folder)

    @property
    def obstacle_to_compile(self) -> str | None:
        return "held graphs" if self.graphs > 0 else None

    @property
    def obstacle_to_capture(self) -> str | None:
        return self.obstacle_to_compile

    @property
    def obstacle_to_implicit(self) -> str | None:
        return self.obstacle_to_compile

    @property
    def obstacle_to_users_capture(self) -> str | None:
        return obstacle_of_offload(self.offload)

    def memory_formula(self) -> str:
        return "(N + s) D + A" if self.keep == "steps" else "N s D + A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction | None:
        if self.graphs > 0 or self.offload is not None:
            return None
        s, starts = model.stages, max(0, steps - 1)
        if self.keep == "stages":
            return Prediction(steps * s, steps * s, steps * s, model.peak_bytes(starts, steps * (s - 1) + 1, 0))
        calls = backward_calls(steps, s)
        return Prediction(steps * s, calls, steps * s, model.peak_bytes(starts, 0, 0))

    def keeper(self, given: ForwardPass) -> StartsAndLastStages | Stages | LastGraphs:
        storage = make_storage(self.offload, self.folder)
        states = Stages(storage) if self.keep == "stages" else StartsAndLastStages(storage)
        if not self.graphs:
            return states
        problem = given.problem
        first = first_step_on_graph(self.graphs, problem.tableau.stages, problem.total_steps)
        return LastGraphs(states, self.graphs, first=first, with_time=given.with_time)

    def backward(self, given: BackwardPass) -> Gradients:
        if self.keep == "stages":
            return transpose_steps(given, StepsFromStages(given))
        return transpose_steps(given, StepsFromStarts(given, KeptStarts(given)))
