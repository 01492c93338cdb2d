"""One step of a fully implicit Runge-Kutta method, whose stages are one system of equations.

    Y_i = y + h sum_j a_ij k_j ,   k_i = f(t + c_i h, Y_i)

Hairer and Wanner, Solving Ordinary Differential Equations II (1996), eq. IV.8.1. field/coupled_solver.py solves it, and
its transpose: with rhs_i the terms of w_i that come from lam and the outputs,

    w_i = rhs_i + h sum_j a_ji l_j ,   l_j = (df/dy)(Y_j)^T w_j
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from symplectic_adjoint.field.coupled_solver import CoupledSolver
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.grad_mode import own_graphs
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.stage_on_graph import stage_for_second_derivatives, stage_on_graph
from symplectic_adjoint.field.times import number
from symplectic_adjoint.steps.implicit import ImplicitStep, linearized
from symplectic_adjoint.steps.runge_kutta import combine, nonzero


class CoupledStep(ImplicitStep):
    """A step whose stages are solved for together, so that it knows all of them or none."""

    __slots__ = ()

    @property
    def _solver(self) -> CoupledSolver:
        return cast(CoupledSolver, super()._solver)

    def state(self, i: int) -> Tensor:
        return self._state(i, self.ks)

    def pop(self, i: int) -> Tensor:
        """Return Y_i. No stage can be forgotten before all are done with."""
        return self.state(i)

    def evaluate(self, rows: int) -> list[Tensor]:
        if len(self.ks) < rows:
            self.ks.clear()
            self._versions.clear()
            self._add(self._solved_together())
        return self.ks

    def solve_transposed(self, rhs: Sequence[Tensor], graphs: Sequence[Linearization | None] | None) -> list[Tensor]:
        """Return the w_i. graphs: those of all stages, if they were kept; else each is made anew for each use."""
        f, times = cast(Field, self.f), self._times()

        def at(i: int) -> Linearization:
            kept = None if graphs is None else graphs[i]
            return f.linearize(times[i], self.state(i)) if kept is None else kept

        return self._solver.solve_together_transposed(at, times, number(self.h), rhs)

    def _times(self) -> list:
        return [self.time(i) for i in range(self.tableau.stages)]

    def _state(self, i: int, ks: Sequence[Tensor]) -> Tensor:
        return combine(self.y, self.h, nonzero(self.tableau.floats.matrix[i]), ks)

    def _solved_together(self) -> list[Tensor]:
        solver, times, h = self._solver, self._times(), number(self.h)
        with torch.no_grad(), own_graphs():
            ks = solver.solve_together(self.f, times, self.y.detach(), h)
        if not torch.is_grad_enabled():
            return ks
        like = ks[0]

        def evaluate(stacked: Tensor) -> tuple[Tensor, list[Linearization]]:
            ks = solver.parts(stacked, like)
            states = [self._state(i, ks) for i in range(len(ks))]
            states = [y if y.requires_grad else y.requires_grad_() for y in states]
            found = [linearized(self.f(t, y), y) for t, y in zip(times, states, strict=True)]
            return solver.stack([value for value, _ in found]), [at for _, at in found]

        def solve_transposed(at: list[Linearization], k_bar: Tensor) -> Tensor:
            return solver.stack(solver.solve_together_transposed(at.__getitem__, times, h, solver.parts(k_bar, like)))

        stacked = solver.stack(ks)
        if cast(Field, self.f).search.gated:
            found = stage_for_second_derivatives(stacked, evaluate, lambda at: solver.exact_solves_together(at, h))
        else:
            found = stage_on_graph(stacked, evaluate, solve_transposed)
        return solver.parts(found, like)
