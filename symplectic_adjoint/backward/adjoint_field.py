"""The adjoint equation as a right-hand side, and the steps of implicit methods on it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from symplectic_adjoint.backward.parameter_sums import Accumulator, Reached
from symplectic_adjoint.errors import Place
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.fills import Fills
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.lost_gradients import LostGradientSearch
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.field.time_tensors import TimeTensors
from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.steps.implicit import ImplicitStep
from symplectic_adjoint.steps.runge_kutta import Step, weighted_sum

Integrand = list[Tensor | None]
"""(df/dtheta)^T lam, an entry for each parameter."""


class AdjointField(KeepNothing):
    """The right-hand side of (y, lam), stacked, and the running integral of dL/dtheta' = -(df/dtheta)^T lam.

    The integrand at a stage comes from the VJP that the stage needs anyway. It lives as long as the stage's k: it is
    freed with a rejected step, and kept if the next step starts with the same k. Implicit stages are solved for by
    stage_solver, if there is one.
    """

    code: None = None

    def __init__(
        self, f: Field, compare_first: Callable[[Tensor], None] | None = None, solver: StageSolver | None = None
    ):
        self.params = Accumulator(len(f.params))
        self.f_calls = 0
        self.accepted = 0
        self._f = f
        self.fills = Fills(torch.Size((2, *f.shape)), f.dtype, f.device)
        self.stage_solver = None if solver is None else AdjointStages(f, solver)
        self._integrands = WeakIdKeyDictionary()
        self._compare_first = compare_first

    def __call__(self, t: Time, z: Tensor) -> Tensor:
        self.f_calls += 1
        y, lam = z
        linearization = self._f.linearize(t, y, with_value=True)
        y_bar, integrand = _transposed(self._f, linearization, lam)
        assert linearization.k is not None
        if self._compare_first is not None:
            self._compare_first(linearization.k)
            self._compare_first = None
        k = torch.stack((linearization.k, torch.zeros_like(lam) if y_bar is None else -y_bar))
        self._integrands[k] = integrand
        return k

    def take_integrand(self, k: Tensor) -> None:
        """Let the stage k have the integrand that was found when it was solved for."""
        assert self.stage_solver is not None
        self.f_calls += self.stage_solver.take_calls()
        self._integrands[k] = self.stage_solver.integrand

    @property
    def search(self) -> LostGradientSearch:
        return self._f.search

    @property
    def resolution(self) -> Resolution | None:
        """That of y's slope; lam's slope comes from the same operations."""
        return self._f.resolution

    @property
    def times(self) -> TimeTensors:
        return self._f.times

    def adjacent_time(self, t: Time, direction: float) -> Time:
        return self._f.adjacent_time(t, direction)

    def restart(self) -> None:
        if self.stage_solver is not None:
            self.stage_solver.restart()

    def place(self, index: int) -> Place:
        """Return the place in y; lam follows y, and its places have the names of those of y."""
        return self._f.place(index % max(1, self._f.shape.numel()))

    def parameter_errors(self, step: Step, weights: Sequence[tuple[int, float]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, by parameter, the error of dL/dtheta in a step, and the larger of its sizes at both ends.

        weights: (stage, weight) of the error estimate.
        """
        h = number(step.h)
        for p, total in enumerate(self.params.total):
            bars = [self._integrands[k][p] for k in step.ks]
            error, change = (
                weighted_sum(h, [(w, bar) for i, w in terms if (bar := bars[i]) is not None])
                for terms in (weights, enumerate(step.tableau.floats.b))
            )
            if error is None:
                continue
            before = torch.zeros_like(error) if total is None else total
            after = before if change is None else before - change
            yield error.abs(), torch.maximum(before.abs(), after.abs())

    def accept(self, plan: StepPlan, step: Step) -> None:
        self.accepted += 1
        for k, weight in zip(step.ks, step.tableau.floats.b, strict=False):
            self.params.add(self._integrands[k], weight=-plan.h * weight)


class AdjointStages:
    """Solves the implicit stages of (y, lam), one after the other, as a StageSolver does those of y alone:

        Y = y + hg f(t, Y)                      by Newton's method
        (I + hg J^T) Lam = lam                  with J = df/dy at Y: the equation of lam is linear

    dL/dtheta is in neither of them. Each has a Jacobian and factors of its own, for I - hg J and for I + hg J.
    """

    def __init__(self, f: Field, solver: StageSolver):
        self._f, self._of_y = f, solver
        self._of_lam: StageSolver | None = None
        self._counted = f.f_calls
        self.integrand: Integrand = []
        """That of the last stage that was solved."""

    def solve(self, adjoint: Any, t: Time, z: Tensor, hg: float, guess: Tensor) -> Tensor:
        """Return hg k for the stage k at z + hg k, starting from a guess of it. Raises StageNotSolved."""
        del adjoint
        self._counted, (y, lam) = self._f.f_calls, z
        change = self._of_y.solve(self._f, t, y, hg, guess[0])
        at = self._f.linearize(t, y + change)
        found = self._solve_transposed(at, t, hg, lam)
        _, self.integrand = _transposed(self._f, at, found)
        return torch.stack((change, found - lam))

    def filtered(self, adjoint: Any, t: Time, z: Tensor, hg: float, error: Tensor) -> Tensor:
        """Return the error estimates of y and of lam, each multiplied by the inverse of its own stages' matrix."""
        del adjoint
        at = self._f.linearize(t, z[0])
        return torch.stack(
            (self._of_y.filtered(self._f, t, z[0], hg, error[0]), self._solve_transposed(at, t, hg, error[1]))
        )

    def take_calls(self) -> int:
        """Return the number of f calls that the last stage took."""
        return self._f.f_calls - self._counted

    def restart(self) -> None:
        """Forget the Jacobians: f may be another function from here on."""
        self._of_y.restart()
        if self._of_lam is not None:
            self._of_lam.restart()

    def _solve_transposed(self, at: Linearization, t: Time, hg: float, rhs: Tensor) -> Tensor:
        if self._of_lam is None:  # only now is it known what f was probed for
            self._of_lam = self._of_y.for_another_pass()
            self._of_lam.work = self._of_y.work
        return self._of_lam.solve_transposed(at, t, -hg, rhs)


class AdjointStep(ImplicitStep):
    """A step of an implicit method on an AdjointField with a stage solver."""

    __slots__ = ()

    def _solved(self, i: int, g: float) -> Tensor:
        k = super()._solved(i, g)
        cast(AdjointField, self.f).take_integrand(k)
        return k


def _transposed(f: Field, linearization: Linearization, lam: Tensor) -> tuple[Tensor | None, Integrand]:
    """Return (df/dy)^T lam and the integrand. The graph is freed."""
    integrand: Integrand = [None] * len(f.params)

    def pull(
        reached: Reached, inputs: Sequence[Tensor], cotangents: Sequence[Tensor], /, *, by_params: bool
    ) -> Sequence[Tensor | None]:
        del by_params
        bars, integrand[:] = f.pull_to_leaves(reached, inputs, cotangents, f.leaves)
        return bars

    (y_bar,) = f.transpose(linearization, lam, pull)
    return y_bar, integrand
