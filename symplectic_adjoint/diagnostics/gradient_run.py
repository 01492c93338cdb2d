"""A gradient of the caller's problem that can be computed repeatedly, to be measured."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from symplectic_adjoint.arguments import Arguments, build_problem, named_gradient
from symplectic_adjoint.autograd_function import run
from symplectic_adjoint.backward.recomputed_verdict import eps_of
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.trajectory import Trajectory


class GradientRun:
    """One gradient of one problem: forward passes, each followed by its backward pass.

    The cotangent of ys is fixed. y0 is a copy, and .grad of the parameters is left alone. A gradient with a method of
    its own uses that method, whatever the arguments say.
    """

    def __init__(self, given: Arguments):
        if named_gradient(given.gradient)[0].own_tableau is not None:
            given = replace(given, method=None)
        self._problem, self._strategy, packed = build_problem(given.with_constant_times())
        self.name, self._t = self._problem.gradient_name, given.t.detach()
        self.y = packed.detach().clone().requires_grad_()
        self._inputs: list[Tensor] = []
        self._ys: Tensor | None = None
        self._cotangent: Tensor | None = None
        self.trajectory: Trajectory | None = None
        """The trajectory of the latest forward pass."""
        self.gradients: Sequence[Tensor | None] = ()
        """The gradients of y0 and the parameters, from the latest backward pass."""

    @property
    def precision(self) -> float:
        """The rounding of the lowest precision in which f computed in the latest forward pass."""
        assert self.trajectory is not None
        return eps_of(self._problem, self.trajectory.field)

    def forward(self) -> None:
        """Solve."""
        with torch.enable_grad():
            self._ys, self.trajectory = run(self._problem, self._strategy, self.y, self._t)
        self._inputs = [self.y, *self.trajectory.field.params]
        if self._cotangent is None:
            self._cotangent = weights_like(self._ys).to(self._ys.dtype)

    def backward(self) -> None:
        """Compute the gradients of the latest solve, and free its graph."""
        ys, self._ys = self._ys, None
        assert ys is not None and self._cotangent is not None
        self.gradients = torch.autograd.grad(ys, self._inputs, self._cotangent, allow_unused=True)

    def discard(self) -> None:
        """Free the graph and the gradients of the latest passes."""
        self._ys, self.gradients = None, ()

    def expected_gradients(self) -> Sequence[Tensor | None]:
        """Return the gradients by plain autograd through the steps of the latest solve."""
        assert self.trajectory is not None and self._cotangent is not None
        with torch.enable_grad():
            ys = replayed(self._problem, self.trajectory, self.y, None)
            ys = ys if self._problem.repeated is None else self._problem.repeated.expand(ys)
            return torch.autograd.grad(ys, self._inputs, self._cotangent, allow_unused=True)


def replayed(problem: Problem, trajectory: Trajectory, y: Tensor, t: Tensor | None) -> Tensor:
    """Return ys at the distinct times, of another pass over the recorded steps, on autograd's graph."""
    f = trajectory.field.for_another_pass()
    with f.forward_state.reinstated(lambda x: x):
        return problem.replay(f, trajectory.plans, y, t)


def weights_like(ys: Tensor) -> Tensor:
    """Return fixed weights between 0.5 and 1.5, irregular enough that errors do not cancel in a weighted sum."""
    steps = torch.arange(ys.numel(), dtype=torch.float64, device=ys.device) * 0.6180339887498949
    return (0.5 + steps.frac()).reshape(ys.shape).to(ys.dtype.to_real())
