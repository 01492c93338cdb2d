"""The floor as a contender: the bare calls of f and the tensors that a gradient cannot avoid, without a solver.

It makes as many calls of f, with and without a graph, and as many vector-Jacobian products as our library does for the
same cell, and holds as many states and graphs as the gradient's formula says. It forms no sums, controls no step and
omits the loss. All calls are made at y0, so the values it leaves in .grad are not a gradient. Calls in rejected steps
and at the start have no graph.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import GradientRun
from symplectic_bench.contenders.observation import NoGradient
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.contenders.reasons import several_fields, unknown_gradient
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell


@dataclass(frozen=True)
class FloorContender:
    """The floor of each gradient whose least cost is known."""

    name: str = "floor"
    gradients: tuple[str, ...] = ("symplectic", "stages", "aca", "baseline", "backprop")
    framework: Literal["torch"] = "torch"
    compiles: bool = False
    captures: bool = False

    def decline(self, cell: Cell) -> str | None:
        return unknown_gradient(self, cell) or several_fields(cell) or OURS.decline(cell)

    def missing(self) -> str | None:
        return None

    def gradient(self, problem: Problem, cell: Cell) -> "FloorRun":
        return FloorRun(problem, cell.gradient, our_counts(problem, cell), METHODS[cell.method].stages)

    def observe(self, problem: Problem, cell: Cell) -> NoGradient:
        return NoGradient(our_counts(problem, cell), "the floor computes no gradient")


_COUNTED: dict[Cell, Counts] = {}


def our_counts(problem: Problem, cell: Cell) -> Counts:
    """Return our library's counts for the cell, from a copy of the problem that is solved once per process."""
    if cell not in _COUNTED:
        copy = problem.to(problem.y0.dtype, problem.y0.device)
        _COUNTED[cell] = OURS.observe(copy, replace(cell, contender=OURS.name)).counts
    return _COUNTED[cell]


class FloorRun(GradientRun):
    """N steps of s stages. The kept states are allocated but never written to."""

    def __init__(self, problem: Problem, gradient: str, counts: Counts, stages: int) -> None:
        assert counts.f_calls_forward is not None and counts.f_calls_backward is not None
        assert counts.vjps_backward is not None and counts.steps_accepted is not None
        self.gradient, self.steps, self.stages = gradient, counts.steps_accepted, stages
        self.vjps = counts.vjps_backward
        graphs_forward = self.vjps if gradient == "backprop" else 0
        self.bare_forward = counts.f_calls_forward - graphs_forward
        self.bare_backward = counts.f_calls_backward - (self.vjps - graphs_forward)
        self.func, self.t = problem.func, problem.t[0].to(problem.y0)
        self.y = problem.y0.detach().requires_grad_()  # y0's own memory
        self.cotangent = problem.y0.detach()
        self.kept: list[Tensor] = []
        self.last_stages: list[Tensor] = []

    def forward(self) -> None:
        self._call(self.bare_forward)
        states = {"symplectic": self.steps, "aca": self.steps, "stages": self.steps * self.stages}
        self.kept = self._states(states.get(self.gradient, 0))
        if self.gradient == "symplectic" and self.steps > 1:
            self.last_stages = self._states(self.stages)
        if self.gradient == "backprop":
            self.kept = self._graphs(self.vjps)

    def backward(self) -> None:
        if self.gradient == "backprop":
            graphs, self.kept = self.kept, []
            self._transpose(graphs)
        elif self.gradient == "baseline":
            self._call(self.bare_backward)
            self._transpose(self._graphs(self.vjps))
        elif self.gradient == "aca":
            for bare, vjps in self._by_step(self.bare_backward, spared=0):
                self._call(bare)
                self._transpose(self._graphs(vjps))
                self.kept.pop()
        elif self.gradient == "stages":
            for bare, vjps in self._by_step(self.bare_backward, spared=0):
                self._call(bare)
                self._one_by_one(vjps, [self.kept.pop() for _ in range(self.stages)])
        else:
            for bare, vjps in self._by_step(self.bare_backward, spared=1 if self.steps > 1 else 0):
                stages = self.last_stages or self._states(self.stages)
                self.last_stages = []
                self._call(bare)
                self._one_by_one(vjps, stages)
                self.kept.pop()

    def _by_step(self, bare: int, spared: int) -> list[tuple[int, int]]:
        """Return (calls without a graph, graphs) of each step, last first; the first `spared` recompute nothing."""
        calls = [0] * spared + shares(bare, max(1, self.steps - spared))
        return list(zip(calls[: self.steps], shares(self.vjps, self.steps), strict=True))

    def _states(self, number: int) -> list[Tensor]:
        return [torch.empty_like(self.cotangent) for _ in range(number)]

    @torch.no_grad()
    def _call(self, number: int) -> None:
        for _ in range(number):
            self.func(self.t, self.cotangent)

    def _graphs(self, number: int) -> list[Tensor]:
        """Return f's values with their graphs. Each value takes the place of the state that a graph keeps."""
        return [self.func(self.t, self.y) for _ in range(number)]

    def _one_by_one(self, vjps: int, states: list[Tensor]) -> None:
        """Transpose one graph at a time while holding the states; each gradient for y replaces one of them."""
        for i in range(vjps):
            by_y = self._transpose([self.func(self.t, self.y)])
            if by_y is not None:
                states[i % len(states)] = by_y

    def _transpose(self, values: list[Tensor]) -> Tensor | None:
        """Sum the values' vector-Jacobian products in .grad, in one pass of autograd; return the one for y."""
        torch.autograd.backward(values, [self.cotangent] * len(values))
        by_y, self.y.grad = self.y.grad, None
        return by_y


def shares(total: int, parts: int) -> list[int]:
    """Split total into parts that are as equal as integers allow, larger parts first."""
    each, more = divmod(total, parts)
    return [each + 1] * more + [each] * (parts - more)


FLOOR = FloorContender()
