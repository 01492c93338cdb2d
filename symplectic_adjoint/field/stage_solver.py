"""The equations of an implicit stage and of its transpose, solved to rounding error.

    z = h g f(t, y + z)                      by simplified Newton iteration; the stage is k = z / (h g)
    (I - h g J^T) w = rhs                    by iterative refinement with VJPs of f at the stage

Hairer and Wanner, Solving Ordinary Differential Equations II (1996), section IV.8. Both iterations correct x by what an
approximate inverse of I - h g J makes of the exact residual, so that a Jacobian of another stage or step costs
iterations and not accuracy.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from symplectic_adjoint.errors import StageNotSolved
from symplectic_adjoint.field.jacobian import jacobian, products, samples_interact, transposed_product
from symplectic_adjoint.field.linear_systems import Factors, Product, gmres
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.times import Time, number

Linear = Literal["auto", "dense", "batched", "gmres"]
LINEAR_SOLVERS: tuple[Linear, ...] = ("auto", "dense", "batched", "gmres")

ROUNDING = 1e3
"""How many eps a correction may be that no longer shrinks."""
ROUNDING_OF_F = 1e-8
"""How large it may be in float64 with a Jacobian of its own: rounding errors of f grow with its stiffness."""
MOST_ITERATIONS = 40
"""Iterations before a stage is given up. One with a good Jacobian takes three to six."""
STATE_ERRORS = 64.0
"""How many times its last correction the error of a stage may be: the solutions of two passes differ by rounding."""
FASTEST = 1e-3
"""The fastest rate that is believed: a fresh Jacobian removes a large error faster than what it leaves."""
MANY_ITERATIONS = 6
"""Iterations after which the next stage gets a Jacobian of its own."""
SLOW = 0.2
"""The rate of convergence at which a kept Jacobian is replaced."""
LARGEST_BLOCK = 256
"""The most entries of a sample for which "auto" forms Jacobians of a batch."""
LARGEST_DENSE = 512
"""The most entries of a state for which "auto" forms its Jacobian."""
INNER_TOLERANCE = 1e-4
"""How far GMRES reduces a residual each time; the iteration around it goes on to rounding error."""


@dataclass
class StageWork:
    """What solving the stages of a pass took.

    linear: the linear solver. iterations: of Newton's method. jacobians, factorizations: how many were formed.
    products: Jacobian products, of either kind. residual: the largest last correction of a stage, or of its transpose,
    relative to the state: what is left of its error. A backward pass begins with that of the forward pass.
    """

    linear: Linear = "auto"
    iterations: int = 0
    jacobians: int = 0
    factorizations: int = 0
    products: int = 0
    residual: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.linear}: {self.iterations} Newton iterations, {self.jacobians} Jacobians, "
            f"{self.factorizations} factorizations, {self.products} products, residual {self.residual:.1e}"
        )


class StageSolver:
    """Solves the implicit stages of one pass, and their transposes; keeps a Jacobian from stage to stage.

    dtype: that of the state. linear: how to solve linear systems. preconditioner: for GMRES, a function of (t, y, hg,
    r) that returns an approximation of (I - hg J)^-1 r, or a pair of it and of the same for J^T.
    """

    def __init__(self, dtype: torch.dtype, linear: Linear = "auto", preconditioner: Any = None):
        self._dtype, self._preconditioner = dtype, preconditioner
        self._linear: Linear = linear
        self._eps = torch.finfo(dtype).eps
        self._blocks: int | None = None
        """How many parts of the state do not interact; 0 if no Jacobian is formed. None until f was probed."""
        self.work = StageWork()
        self._defect = 0.0
        self._r: Tensor | None = None
        """The last residual of Newton's method."""
        self.restart()

    def for_another_pass(self) -> "StageSolver":
        """Return a solver with counts of its own, which knows what f was probed for."""
        other = copy(self)
        other.work = StageWork(self.work.linear, residual=self.work.residual)
        other.restart()
        return other

    @property
    def state_error(self) -> float:
        """A bound on the relative error of a stage's state, by which two passes may differ."""
        return STATE_ERRORS * max(self.work.residual, 16.0 * self._eps)

    @property
    def defect(self) -> float:
        """A bound on |z - hg f| relative to a stage's state. For a stiff f it is much more than the state's error."""
        return STATE_ERRORS * max(self._defect, self._eps)

    def restart(self) -> None:
        """Forget the Jacobian: f may be another function from here on."""
        self._jacobian: Tensor | None = None
        self._factors: Factors | None = None
        self._outdated = False
        self._slowest = 0.0
        """The slowest rate of convergence with this Jacobian: that of a small part of an error shows only at times."""

    def solve(self, f: Any, t: Time, y: Tensor, hg: float, guess: Tensor) -> Tensor:
        """Return z = hg f(t, y + z). Raises StageNotSolved."""
        if self._blocks is None:
            self._probe(f, t, y)
        if not self._blocks:
            return self._solve_by_products(f, t, y, hg, guess)
        formed_at: list[Tensor] = []
        known: list[Tensor] = []
        """f at the iterate, if the Jacobian's call returned it."""

        def refresh(z: Tensor) -> bool:
            if formed_at and formed_at[0] is z:
                return False
            at = f.linearize(t, y + z, with_value=True)
            formed_at[:], known[:] = [z], [at.k]
            self._form(at)
            return True

        def correction(z: Tensor) -> Tensor:
            k = known.pop() if known else f(t, y + z)
            self._r = torch.sub(hg * k, z)
            return self._factored(hg).solve(self._r)

        if self._jacobian is None or self._outdated:
            refresh(guess)
        z, taken = self._corrected(guess, correction, refresh, y, f"the stage at t = {number(t):.9g}")
        self.work.iterations += taken
        self._outdated = taken > MANY_ITERATIONS
        return z

    def solve_transposed(self, at: Linearization, t: Time, hg: float, rhs: Tensor) -> Tensor:
        """Return w with w - hg J^T w = rhs, where J = df/dy on this graph. Raises StageNotSolved."""

        def product(w: Tensor) -> Tensor:
            self.work.products += 1
            return transposed_product(at, w)

        if self._blocks == 0:
            approximate = self._preconditioned(t, at.inputs[0], hg, transposed=True)

            def solve(r: Tensor) -> Tensor:
                return self._by_products(product, hg, r, approximate)
        else:

            def solve(r: Tensor) -> Tensor:
                return self._factored(hg).solve_transposed(r)

        own = [False]

        def refresh(_: Tensor) -> bool:
            if own[0] or self._blocks == 0:
                return False
            self._form(at)
            own[0] = True
            return True

        if self._blocks != 0 and self._jacobian is None:
            refresh(rhs)

        def correction(w: Tensor) -> Tensor:
            return solve(rhs - w + hg * product(w))

        where = f"the transpose of the stage at t = {number(t):.9g}"
        return self._corrected(solve(rhs), correction, refresh, torch.zeros_like(rhs), where)[0]

    def exact_solves(self, at: Linearization, hg: float) -> tuple[Product, Product]:
        """Return r -> (I - hg J)^-1 r and r -> (I - hg J)^-T r, where J = df/dy on this graph."""
        if self._blocks:
            factors = Factors(jacobian(at, self._blocks), hg)
            return factors.solve, factors.solve_transposed
        straight = products(at)
        return (
            lambda r: self._by_products(straight, hg, r, tolerance=self._eps),
            lambda r: self._by_products(lambda w: transposed_product(at, w), hg, r, tolerance=self._eps),
        )

    def filtered(self, f: Any, t: Time, y: Tensor, hg: float, error: Tensor) -> Tensor:
        """Return (I - hg J)^-1 error, with the Jacobian at hand."""
        if self._blocks:
            return self._factored(hg).solve(error)
        return self._by_products(products(f.linearize(t, y)), hg, error)

    def _by_products(
        self,
        product: Product,
        hg: float,
        r: Tensor,
        approximate: Product | None = None,
        *,
        tolerance: float = INNER_TOLERANCE,
    ) -> Tensor:
        """Return (I - hg A)^-1 r by GMRES, where product returns A x. approximate: a preconditioner."""
        return gmres(lambda v: torch.sub(v, product(v), alpha=hg), r, tolerance=tolerance, precondition=approximate)

    def _solve_by_products(self, f: Any, t: Time, y: Tensor, hg: float, guess: Tensor) -> Tensor:
        """Return what `solve` does, by GMRES with products at an iterate of the stage."""
        held: list[tuple[Product, Tensor | None]] = []

        def refresh(z: Tensor) -> bool:
            at = f.linearize(t, y + z, with_value=True)
            held[:], self._slowest = [(products(at), at.k)], 0.0
            return True

        approximate = self._preconditioned(t, y, hg, transposed=False)

        def correction(z: Tensor) -> Tensor:
            product, k = held[0]
            held[0] = (product, None)
            self._r = r = torch.sub(hg * (f(t, y + z) if k is None else k), z)

            def counted(v: Tensor) -> Tensor:
                self.work.products += 1
                return product(v)

            return self._by_products(counted, hg, r, approximate)

        refresh(guess)
        z, taken = self._corrected(guess, correction, refresh, y, f"the stage at t = {number(t):.9g}")
        self.work.iterations += taken
        return z

    def _corrected(
        self,
        x: Tensor,
        correction: Callable[[Tensor], Tensor],
        refresh: Callable[[Tensor], bool],
        beside: Tensor,
        where: str,
    ) -> tuple[Tensor, int]:
        """Return x with corrections added until they are rounding error, and how many there were.

        refresh: prepares better corrections from x; returns whether it could. beside: what x is added to, which sets
        the size of rounding errors too.
        """
        eps, previous, rate, ratio, taken = self._eps, math.inf, 0.0, math.inf, 0
        self._r, polished = None, False
        while taken < MOST_ITERATIONS:
            taken += 1
            delta = correction(x)
            ratio, defect = self._ratios(delta, x, beside)
            rate = ratio / previous if previous < math.inf else 0.0
            if not math.isfinite(ratio):
                if refresh(x):
                    previous = math.inf
                    continue
                break
            if rate >= 1.0 and previous <= max(ROUNDING * eps, ROUNDING_OF_F):
                if polished or previous <= ROUNDING * eps or not refresh(x):  # rounding errors are all that is left
                    self._note(previous, defect)
                    return x, taken
                previous, polished = math.inf, True
                continue
            if rate >= 1.0 and refresh(x):  # rather than overshoot, perhaps to another solution
                previous = math.inf
                continue
            if rate >= 2.0:
                break
            x = x + delta
            if ratio > ROUNDING * eps:
                self._slowest = max(self._slowest, rate)
            left = ratio * max(rate, self._slowest, FASTEST) if rate > 0.0 else ratio
            if ratio <= 4.0 * eps or (rate < 0.5 and left <= eps):
                self._note(min(ratio, max(left, eps)), defect)
                return x, taken
            previous = ratio
            if rate > SLOW and ratio > ROUNDING * eps and refresh(x):
                previous = math.inf
        beyond = self._r is not None and not bool(self._r.isfinite().all())
        raise StageNotSolved(
            f"the equations of {where} were not solved in {taken} iterations: the last correction was {ratio:.2g} of "
            f"the state, {rate:.2g} of the one before{', where func is not finite' if beyond else ''} "
            f"(linear solver: {self.work.linear})"
        )

    def _note(self, residual: float, defect: float) -> None:
        self.work.residual, self._defect = max(self.work.residual, residual), max(self._defect, defect)

    def _ratios(self, delta: Tensor, x: Tensor, beside: Tensor) -> list[float]:
        """Return the largest |delta| / (|x + delta| + |beside|) over blocks, and the same of Newton's residual.

        In the maximum norm. Waits for the device.
        """
        blocks = self._blocks or 1
        size = (x + delta).abs_().add_(beside.abs()).reshape(blocks, -1).amax(1)
        size.clamp_min_(torch.finfo(x.dtype).tiny)
        offs = [delta] if self._r is None else [delta, self._r]
        ratios = [(off.abs().reshape(blocks, -1).amax(1) / size).amax() for off in offs]
        return [*torch.stack(ratios).tolist(), 0.0][:2]

    def _probe(self, f: Any, t: Time, y: Tensor) -> None:
        """Choose the blocks: see LINEAR_SOLVERS. Raises ValueError for "batched" samples that interact."""
        n = y.numel()
        linear: Linear = self._linear
        has_batch = y.ndim > 1 and len(y) > 1
        if linear == "batched" or (linear == "auto" and has_batch and n // len(y) <= LARGEST_BLOCK):
            generator = torch.Generator("cpu").manual_seed(1)
            noise = torch.randn(y.shape, generator=generator, dtype=torch.float64, device="cpu")
            at = f.linearize(t, y * (1.0 + 0.01 * noise.to(y.dtype).to(y.device)))
            interacts = samples_interact(at)
            if linear == "batched" and interacts:
                raise ValueError(
                    "option 'linear' is 'batched', but func of one sample depends on another sample's y (along the "
                    "first dimension of y0): give linear='dense' or 'gmres'"
                )
            linear = linear if interacts else "batched"
        if linear == "auto":
            linear = "dense" if n <= LARGEST_DENSE else "gmres"
        self._blocks = {"batched": len(y) if y.ndim else 1, "dense": 1, "gmres": 0}[linear]
        self.work.linear = linear

    def _form(self, at: Linearization) -> None:
        self.restart()
        self._jacobian = jacobian(at, self._blocks or 1)
        self.work.jacobians += 1

    def _factored(self, hg: float) -> Factors:
        assert self._jacobian is not None
        if self._factors is None or self._factors.hg != hg:
            self._factors = Factors(self._jacobian, hg)
            self.work.factorizations += 1
        return self._factors

    def _preconditioned(self, t: Time, y: Tensor, hg: float, *, transposed: bool) -> Product | None:
        given = self._preconditioner
        if given is None or (transposed and not isinstance(given, tuple)):
            return None
        apply = given[transposed] if isinstance(given, tuple) else given
        return lambda r: apply(number(t), y, hg, r)
