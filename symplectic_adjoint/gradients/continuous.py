"""The continuous adjoint method: the adjoint equation solved backwards, as an approximation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from symplectic_adjoint.control import Norm
from symplectic_adjoint.field import Field, Time
from symplectic_adjoint.gradients.accumulator import Accumulator
from symplectic_adjoint.gradients.base import BackwardPass, Gradients
from symplectic_adjoint.gradients.baseline import KeepNothing
from symplectic_adjoint.grid import StepPlan
from symplectic_adjoint.loop import integrate
from symplectic_adjoint.outputs import Outputs
from symplectic_adjoint.problem import Problem
from symplectic_adjoint.step import Step
from symplectic_adjoint.timeline import Timeline


@dataclass(frozen=True)
class Continuous:
    """Solves y' = f, lam' = -(df/dy)^T lam backwards from output to output (Chen et al., NeurIPS 2018).

    NOT the gradient of the steps taken: its error is that of the second solve. Between outputs y is
    computed again backwards, from the stored output. dL/dtheta is integrated by the weights of the
    accepted steps and takes no part in step control (the seminorm of Kidger, Chen and Lyons, 2021), so that it
    costs s tensors like theta for the step at hand, and not a share of every stage's state. Method, tolerances
    and options are the forward pass's.
    """

    exact: ClassVar[bool] = False
    uses_outputs: ClassVar[bool] = True

    def keeper(self, problem: Problem) -> KeepNothing:
        del problem
        return KeepNothing()

    def backward(self, given: BackwardPass) -> Gradients:
        problem, times, ys, grad_ys = given.problem, given.problem.times, given.ys, given.grad_ys
        assert ys is not None
        adjoint = _AdjointField(given.field)
        norm = _larger_of_two(problem.options.control.norm) if problem.options.control else None
        lam = grad_ys[-1]
        t_bars: list[Tensor] = []
        with torch.no_grad():
            for j in range(len(times) - 1, 0, -1):
                if given.t is not None:
                    t_bars.append((given.field(times[j], ys[j]) * grad_ys[j]).sum())
                start = torch.stack((ys[j], lam))
                segment = (times[j], times[j - 1])
                outputs = Outputs(segment[:1], start, on_graph=False)
                clock = problem.clock(segment, norm)
                _, end = integrate(adjoint, problem.tableau, clock, start, outputs, adjoint, Timeline(times[j]))
                lam = end[1] + grad_ys[j - 1]
            t_bar = None
            if given.t is not None:
                t_bars.append(-(given.field(times[0], given.y0) * (lam - grad_ys[0])).sum())
                t_bar = torch.stack(t_bars[::-1]).to(dtype=given.t.dtype, device=given.t.device)
        return Gradients(lam, t_bar, adjoint.params.total)


def _larger_of_two(norm: Norm) -> Norm:
    """The norm of (y, lam) stacked: the larger of the two, each in the norm that was given for y."""
    return lambda z: torch.maximum(torch.as_tensor(norm(z[0])), torch.as_tensor(norm(z[1])))


class _AdjointField:
    """The right hand side of (y, lam), stacked, and the running integral of dL/dtheta' = -(df/dtheta)^T lam.

    The integrand at a stage comes with the VJP that the stage needs anyway. It lives as long as the
    stage's k does, and so goes with a rejected step, or stays for the step that starts with it.
    """

    def __init__(self, f: Field):
        self.params = Accumulator(len(f.params))
        self._f = f
        self._integrands = WeakIdKeyDictionary()

    def __call__(self, t: Time, z: Tensor) -> Tensor:
        y, lam = z
        vjp = self._f.vjp(t, y, lam)
        k = torch.stack((vjp.k, torch.zeros_like(lam) if vjp.y_bar is None else -vjp.y_bar))
        self._integrands[k] = vjp.param_bars
        return k

    def accept(self, plan: StepPlan, step: Step) -> None:
        for k, weight in zip(step.ks, step.tableau.floats.b, strict=False):
            self.params.add(self._integrands[k], weight=-plan.h * weight)
