"""A single checkpoint, y0: the backward pass repeats the solve on the graph."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from symplectic_adjoint.backward.checkpoints import NoCheckpoints
from symplectic_adjoint.backward.memory_model import MemoryModel, Prediction
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.field.graph import edge_to


@dataclass(frozen=True)
class Baseline(Strategy):
    """Keep y0 and the step sizes; replay the recorded steps on the graph and backpropagate.

    Memory D between the passes, N s A in the backward pass, which takes s f calls per accepted step.
    """

    also_called: ClassVar[tuple[str, ...]] = ("onecheckpoint", "odeint_onecheckpoint")
    takes_implicit: ClassVar[bool] = True

    def memory_formula(self) -> str:
        return "D, then N s A"

    def predicted(self, model: MemoryModel, steps: int) -> Prediction:
        calls = steps * model.stages
        return Prediction(calls, calls, calls, model.whole_graph_bytes(steps) + model.cost.state_bytes)

    def keeper(self, given: ForwardPass) -> NoCheckpoints:
        del given
        return NoCheckpoints()

    def backward(self, given: BackwardPass) -> Gradients:
        f = given.field
        with torch.enable_grad():
            y0 = given.y0.detach().requires_grad_()
            t = None if given.t is None else given.t.detach().requires_grad_()
            start = y0.view_as(y0)  # func is passed no leaf: see Field._passed
            ys = given.problem.replay(f, given.trajectory.plans, start, t, given.values_of_solve())
        f.vjps += f.calls_on_graph
        times = () if t is None else (t,)
        # The only VJP: there is nothing to sum.
        bars = f.pull((edge_to(ys),), (y0, *times, *f.leaves), (given.grad_ys,))
        return Gradients(bars[0], bars[1] if times else None, bars[1 + len(times) :])
