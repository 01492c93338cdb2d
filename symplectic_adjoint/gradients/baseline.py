"""One checkpoint, the start: the solve is taken again on the graph when the gradient is asked for."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from symplectic_adjoint.backward.checkpoints import Nothing
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients
from symplectic_adjoint.field.graph import edge_to


@dataclass(frozen=True)
class Baseline:
    """Keeps y0 and the step sizes; goes back over the recorded steps by backpropagation.

    Memory D between the passes, N s A on the way back; s f calls a step on the way back, none of them
    spent on steps that had been rejected.
    """

    exact: ClassVar[bool] = True
    uses_outputs: ClassVar[bool] = False

    def keeper(self, given: ForwardPass) -> Nothing:
        del given
        return Nothing()

    def backward(self, given: BackwardPass) -> Gradients:
        f = given.field
        with torch.enable_grad():
            y0 = given.y0.detach().requires_grad_()
            t = None if given.t is None else given.t.detach().requires_grad_()
            ys = given.problem.replay(f, given.trajectory.plans, y0, t)
        f.vjps += f.f_calls
        times = () if t is None else (t,)
        # The only VJP, so that there is nothing to sum.
        bars = f.pull((edge_to(ys),), (y0, *times, *f.params), (given.grad_ys,))
        return Gradients(bars[0], bars[1] if times else None, bars[1 + len(times) :])
