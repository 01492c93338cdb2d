"""The equations of the coupled stages of a fully implicit method and of their transpose, solved to rounding error.

    x_i = h f(t_i, y + sum_j a_ij x_j)                          by simplified Newton iteration; k_i = x_i / h
    w_i - h sum_j a_ji J_j^T w_j = rhs_i                        by iterative refinement with VJPs of f at the stages

Hairer and Wanner, Solving Ordinary Differential Equations II (1996), section IV.8. The matrix is I - h M, or its
transpose, where block (i, j) of M is a_ij J_i. As in stage_solver.py an approximation of its inverse suffices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.field.jacobian import jacobian, products, transposed_product
from symplectic_adjoint.field.linear_systems import Factors, Product
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.stage_solver import MANY_ITERATIONS, Linear, StageSolver
from symplectic_adjoint.field.times import Time, number

StageGraph = Callable[[int], Linearization]
"""i -> f at stage i on a graph: one that is kept, or one that is made for this use."""


class CoupledSolver(StageSolver):
    """Solves all stages of a step at once.

    A: the whole matrix a_ij. The values of all stages are stacked as (blocks, stages, n), with one block for each
    sample if samples do not interact, else one for the whole state. Where Jacobians are formed, each stage has its own.
    GMRES takes that of the last stage for all in the stages' equations, so that the graph of one f is held.
    """

    def __init__(self, dtype: torch.dtype, linear: Linear, preconditioner: Any, A: Sequence[Sequence[float]]):
        super().__init__(dtype, linear, preconditioner)
        self._rows = A
        self._A: Tensor | None = None

    def stack(self, xs: Sequence[Tensor]) -> Tensor:
        """Return the values of all stages, each like the state, as one tensor."""
        return torch.stack([x.reshape(self._blocks or 1, -1) for x in xs], 1)

    def parts(self, x: Tensor, like: Tensor) -> list[Tensor]:
        """Return the values of the stages, each of the shape of `like`."""
        return [part.reshape(like.shape) for part in x.unbind(1)]

    def solve_together(self, f: Any, times: Sequence[Time], y: Tensor, h: float) -> list[Tensor]:
        """Return the k_i = f(t_i, y + h sum_j a_ij k_j). Raises StageNotSolved."""
        if self._blocks is None:
            self._probe(f, times[-1], y)
        formed_at: list[Tensor] = []
        known: list[Tensor] = []
        """f at the iterate, if the calls for the Jacobians returned it."""
        straight: list[Product] = []

        def states(x: Tensor) -> list[Tensor]:
            return [y + part for part in self.parts(self._mixed(x), y)]

        def refresh(x: Tensor) -> bool:
            if not self._blocks:
                straight.clear()  # the graph of one f at a time
                straight.append(products(f.linearize(times[-1], states(x)[-1])))
                self._slowest = 0.0
                return True
            if formed_at and formed_at[0] is x:
                return False
            formed_at[:], known[:] = [x], []
            at_stages = states(x)

            def linearized(i: int) -> Linearization:
                at = f.linearize(times[i], at_stages[i], with_value=True)
                known.append(at.k)
                return at

            self._form_all(linearized)
            return True

        def product(x: Tensor) -> Tensor:
            self.work.products += len(times)
            return self.stack([straight[0](part) for part in self.parts(self._mixed(x), y)])

        approximate = None if self._blocks else self._preconditioned_stages(times, y, h, transposed=False)

        def correction(x: Tensor) -> Tensor:
            values = known or [f(t, state) for t, state in zip(times, states(x), strict=True)]
            self._r = torch.sub(h * self.stack(values), x)
            known.clear()
            if self._blocks:
                return self._factored(h).solve(self._r)
            return self._by_products(product, h, self._r, approximate)

        guess = self.stack([torch.zeros_like(y)] * len(times))
        if not self._blocks or self._jacobian is None or self._outdated:
            refresh(guess)
        beside = self.stack([y])
        x, taken = self._corrected(guess, correction, refresh, beside, _named(times))
        self.work.iterations += taken
        self._outdated = taken > MANY_ITERATIONS
        return self.parts(x / h, y)

    def solve_together_transposed(
        self, at: StageGraph, times: Sequence[Time], h: float, rhs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the w_i with w_i - h sum_j a_ji J_j^T w_j = rhs_i, where J_j = df/dy at stage j.

        Each use of J_j calls `at` once more, and keeps nothing of it. Raises StageNotSolved.
        """
        like, r = rhs[0], self.stack(rhs)

        def product(w: Tensor) -> Tensor:
            self.work.products += len(times)
            pulled = [transposed_product(at(j), part) for j, part in enumerate(self.parts(w, like))]
            return self._mixed(self.stack(pulled), transposed=True)

        if self._blocks == 0:
            states = at(len(times) - 1).inputs[0] if self._preconditioner is not None else like
            approximate = self._preconditioned_stages(times, states, h, transposed=True)

            def solve(r: Tensor) -> Tensor:
                return self._by_products(product, h, r, approximate)
        else:

            def solve(r: Tensor) -> Tensor:
                return self._factored(h).solve_transposed(r)

        own = [self._blocks == 0]
        """Whether no better Jacobians can be formed."""

        def refresh(_: Tensor) -> bool:
            if own[0]:
                return False
            self._form_all(at)
            own[0] = True
            return True

        if self._jacobian is None:
            refresh(r)

        def correction(w: Tensor) -> Tensor:
            return solve(r - w + h * product(w))

        where = f"the transpose of {_named(times)}"
        w, _ = self._corrected(solve(r), correction, refresh, torch.zeros_like(r), where)
        return self.parts(w, like)

    def exact_solves_together(self, at: Sequence[Linearization], h: float) -> tuple[Product, Product]:
        """Return r -> (I - h M)^-1 r and r -> (I - h M)^-T r on stacked values, with the Jacobians on these graphs."""
        if self._blocks:
            factors = Factors(self._matrix(at.__getitem__), h)
            return factors.solve, factors.solve_transposed
        like, straight = at[0].inputs[0].detach(), [products(one) for one in at]

        def product(x: Tensor) -> Tensor:
            return self.stack([p(part) for p, part in zip(straight, self.parts(self._mixed(x), like), strict=True)])

        def transposed(w: Tensor) -> Tensor:
            pulled = [transposed_product(one, part) for one, part in zip(at, self.parts(w, like), strict=True)]
            return self._mixed(self.stack(pulled), transposed=True)

        return (
            lambda r: self._by_products(product, h, r, tolerance=self._eps),
            lambda r: self._by_products(transposed, h, r, tolerance=self._eps),
        )

    def _coefficients(self, like: Tensor) -> Tensor:
        if self._A is None or self._A.device != like.device:
            self._A = torch.tensor(self._rows, dtype=like.dtype, device=like.device)
        return self._A

    def _mixed(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        """Return the stacked sum_j a_ij x_j, or sum_j a_ji x_j."""
        A = self._coefficients(x)
        return ((A.mT if transposed else A)[..., None] * x[:, None]).sum(2)

    def _matrix(self, at: StageGraph) -> Tensor:
        """Return M, of shape (blocks, stages n, stages n)."""
        J = torch.stack([jacobian(at(i), self._blocks or 1) for i in range(len(self._rows))], 1)
        M = self._coefficients(J)[:, None, :, None] * J[:, :, :, None, :]
        return M.reshape(len(J), J.shape[1] * J.shape[2], -1)

    def _form_all(self, at: StageGraph) -> None:
        self.restart()
        self._jacobian = self._matrix(at)
        self.work.jacobians += len(self._rows)

    def _preconditioned_stages(self, times: Sequence[Time], y: Tensor, h: float, *, transposed: bool) -> Product | None:
        """Return the user's preconditioner, applied to each stage with h a_ii; None if there is none."""
        found = [
            self._preconditioned(t, y, h * row[i], transposed=transposed)
            for i, (t, row) in enumerate(zip(times, self._rows, strict=True))
        ]
        if None in found:
            return None
        return lambda r: self.stack([p(x) for p, x in zip(found, self.parts(r, y), strict=True) if p is not None])


def _named(times: Sequence[Time]) -> str:
    """Return how errors name the stages of a step."""
    return f"the coupled stages from t = {number(times[0]):.9g} to {number(times[-1]):.9g}"
