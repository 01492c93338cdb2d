"""Plain backpropagation through the solve."""

from dataclasses import dataclass
from typing import ClassVar

from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.backward.strategy import Strategy


@dataclass(frozen=True)
class Backprop(Strategy):
    """Keep the whole solve on the caller's autograd graph: memory N s A, no f calls in the backward pass.

    Step sizes are constants in the graph, so this too is the gradient of the recorded steps.
    """

    also_called: ClassVar[tuple[str, ...]] = (
        "backpropagation",
        "autograd",
        "direct",
        "DirectAdjoint",
        "AutoDiffAdjoint",
    )
    on_callers_graph: ClassVar[bool] = True
    takes_implicit: ClassVar[bool] = True

    def memory_formula(self) -> str:
        return "N s A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction:
        calls = steps * model.stages
        return Prediction(calls, 0, calls, model.whole_graph_bytes(steps))
