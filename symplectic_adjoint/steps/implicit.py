"""One step of a diagonally implicit Runge-Kutta method.

    Y_i = y + h sum_{j<i} a_ij k_j + h g_i k_i ,   k_i = f(t + c_i h, Y_i) ,   g_i = a_ii

Hairer and Wanner, Solving Ordinary Differential Equations II (1996), eq. IV.6.1. Where g_i is not zero, the stage is
solved for by field/stage_solver.py, and k_i is (Y_i - y - ..) / (h g_i), which amplifies no error, not f(Y_i).
"""

import math
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.grad_mode import own_graphs, without_graph
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.split_function import evaluating_row
from symplectic_adjoint.field.stage_on_graph import stage_for_second_derivatives, stage_on_graph
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.field.times import number
from symplectic_adjoint.steps.pushed_sums import PushedSums
from symplectic_adjoint.steps.runge_kutta import Step, combine

MOST_NODES = 3
"""The stages that predict the next one. More would amplify the errors of stiff components."""


class ImplicitStep(Step):
    """A step whose implicit stages are solved to rounding error, so that it does not depend on how."""

    __slots__ = ()

    @property
    def _solver(self) -> StageSolver:
        solver = cast(Field, self.f).stage_solver
        assert solver is not None
        return solver

    def state(self, i: int) -> Tensor:
        """Return Y_i; that of an implicit stage contains the stage itself, which must be known."""
        g = self.tableau.floats.diagonal[i]
        return super().state(i) if g == 0.0 else combine(self._before(i), self.h, [(i, g)], self.ks)

    def pop(self, i: int) -> Tensor:
        y = self.state(i)
        del self.ks[i:]
        return y

    def evaluate(self, rows: int) -> list[Tensor]:
        while len(self.ks) < rows:
            i = len(self.ks)
            g = self.tableau.floats.diagonal[i]
            if self.tableau.additive and cast(Field, self.f).search.due:
                self.f(self.time(i), self.y)  # the call that is searched must be that of the sum
            with self.evaluating(i):
                self._add([self.f(self.time(i), self.state(i)) if g == 0.0 else self._solved(i, g)])
        return self.ks

    def evaluating(self, i: int) -> Any:
        return evaluating_row(self.tableau.extended_parts, i)

    def errors(self) -> list[Tensor]:
        found = super().errors()
        if not self.tableau.filtered_error:
            return found
        i = self.tableau.stages - 1
        hg = number(self.h) * self.tableau.floats.diagonal[i]
        f, t, end = cast(Field, self.f), self.time_of_end(), self.end().detach()
        with without_graph(), own_graphs(), self.evaluating(i):
            return [self._solver.filtered(f, t, end, hg, x) for x in found]

    def _before(self, i: int) -> Tensor:
        """Return the part of Y_i that the stages before it make."""
        return combine(self.y, self.h, self.tableau.terms.A[i], self.ks)

    def _solved(self, i: int, g: float) -> Tensor:
        before, t, hg = self._before(i), self.time(i), number(self.h) * g
        with torch.no_grad(), own_graphs():
            fixed = before.detach()
            guess = self._predicted(i, hg) if i else torch.zeros_like(fixed)
            k = self._solver.solve(self.f, t, fixed, hg, guess) / hg
        if not torch.is_grad_enabled():
            return k

        def evaluate(k: Tensor) -> tuple[Tensor, Linearization]:
            y = combine(before, self.h, [(0, g)], [k])
            y = y if y.requires_grad else y.requires_grad_()
            with self.evaluating(i):
                return linearized(self.f(t, y), y)

        if cast(Field, self.f).search.gated:
            return stage_for_second_derivatives(k, evaluate, lambda at: self._solver.exact_solves(at, hg))
        return stage_on_graph(k, evaluate, lambda at, k_bar: self._solver.solve_transposed(at, t, hg, k_bar))

    def _predicted(self, i: int, hg: float) -> Tensor:
        """Return a guess of hg k_i from the stages before it."""
        if self.tableau.additive:
            return hg * self.ks[i - 2].detach()  # the same part's last stage
        terms = _extrapolation(self.tableau.floats.c[: i + 1])
        guess = (hg * terms[0][1]) * self.ks[terms[0][0]].detach()
        for j, weight in terms[1:]:
            guess.add_(self.ks[j].detach(), alpha=hg * weight)
        return guess

    def _pushed_sums(self, ks: object) -> PushedSums | None:
        """Form each sum where it is needed: a stage is in its own state."""


def linearized(value: Tensor, y: Tensor) -> tuple[Tensor, Linearization]:
    """Return a value of f on the graph of y, and its graph."""
    return value, Linearization(edge_to(value) if value.requires_grad else None, (y,), None)


@cache
def _extrapolation(c: tuple[float, ...]) -> list[tuple[int, float]]:
    """Return (j, weight) of the stages j whose polynomial in c predicts the last of these: at most the last three.

    Of stages at one time only the last counts; one at the time of the predicted stage is itself the prediction.
    """
    *before, at = c
    nodes: dict[float, int] = {}
    for j in reversed(range(len(before))):
        nodes.setdefault(before[j], j)
    if at in nodes:
        return [(nodes[at], 1.0)]
    chosen = list(nodes.items())[:MOST_NODES]
    return [(j, math.prod((at - other) / (x - other) for other, _ in chosen if other != x)) for x, j in chosen]
