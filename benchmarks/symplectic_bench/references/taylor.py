"""References by Taylor series in quadruple precision, by integrators that heyoka compiles from the formula.

Small problems are solved with their variational equations, which give dy(t)/dy0 and dy(t)/dtheta; larger ones with
the adjoint equation, whose size does not grow with state times parameters. Samples of a batch are independent and are
solved one by one. The loss and its gradient with respect to ys are computed in fifty digits.

Biscani and Izzo, Revisiting high-order Taylor methods for astrodynamics and celestial mechanics, MNRAS 504 (2021).
"""

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from symplectic_bench.oracles.fifty_digits import FIFTY, array
from symplectic_bench.oracles.twin import DigitsTwin, error_between
from symplectic_bench.problems import Problem
from symplectic_bench.references.reference import Reference

SOURCE = "Taylor series"

CHECK_TOLERANCE = 1e-29
"""The tolerance of a second solve. The error bar is its distance from the first, whose tolerance is 2e-34."""

MAX_VARIATIONAL = 500
"""The number of variational equations per sample above which the adjoint equation is faster."""

MAX_VARIATIONAL_FALLBACK = 4_000
"""The largest number of variational equations per sample to solve, however slowly, if the adjoint equation fails."""

MAX_STEPS = 100_000


def can_expand(problem: Problem, max_equations: int) -> bool:
    """Return whether heyoka is installed and the problem is a single smooth field of at most max_equations equations.

    Equations are counted in adjoint form, over all samples.
    """
    if importlib.util.find_spec("heyoka") is None or problem.formula is None or problem.jumps or problem.components > 1:
        return False
    batch, dim = problem.y0.shape
    return batch * (2 * dim + sum(p.numel() for p in problem.parameters)) <= max_equations


def taylor_reference(problem: Problem, adjoint: bool | None = None) -> Reference:
    """Return the reference. Raise ArithmeticError if a series does not reach the next output.

    adjoint: whether to solve the adjoint or the variational equations; by default the size decides.
    """
    solver = _Solver(problem, adjoint)
    try:
        return _with_bar(solver)
    except ArithmeticError:  # a solution that decays forward in time may explode backward
        if adjoint is not None or not solver.adjoint or solver.variations > MAX_VARIATIONAL_FALLBACK:
            raise
        return _with_bar(_Solver(problem, adjoint=False))


def _with_bar(solver: "_Solver") -> Reference:
    final_state, loss, gradient, by_times = solver.gradient(0.0)
    _, _, checked, _ = solver.gradient(CHECK_TOLERANCE)
    bar = error_between(checked, gradient)
    return Reference.of_numbers(SOURCE, final_state, float(loss), gradient, by_times, bar)


class _Solver:
    """The problem in heyoka's symbols: variables y_i, runtime parameters for theta and each sample's own buffers."""

    def __init__(self, problem: Problem, adjoint: bool | None):
        self.hy: Any = importlib.import_module("heyoka")
        self._problem, self._twin = problem, DigitsTwin(problem)
        self._theta = [float(x) for p in problem.parameters for x in p.detach().double().flatten()]
        dim, P = problem.y0.shape[1], len(self._theta)
        self.variations = dim * (1 + dim + P)
        self.adjoint = self.variations > MAX_VARIATIONAL if adjoint is None else adjoint
        self._held = {name: value for name, value in self._twin.held.items() if _is_by_sample(value, problem)}
        self.y = self._symbols("y", dim)
        self.theta = [self.hy.par[i] for i in range(P)]
        self.f = self._right_hand_side()

    def gradient(self, tolerance: float) -> tuple[np.ndarray, Any, list[np.ndarray], np.ndarray]:
        """Return the final state, the loss, and its gradients with respect to the inputs and to the times."""
        problem, batch = self._problem, len(self._problem.y0)
        integrate = self._by_adjoint if self.adjoint else self._by_variations
        ys = np.stack([self._states(b, tolerance) for b in range(batch)], axis=1)
        mu, loss = self._twin.cotangents(ys)
        pairs = [integrate(b, ys[:, b], mu[:, b], tolerance) for b in range(batch)]
        by_y0 = np.stack([pair[0] for pair in pairs]) + mu[0]
        by_theta, gradient, first = np.sum([pair[1] for pair in pairs], axis=0), [by_y0], 0
        for p in problem.parameters:
            gradient.append(np.asarray(by_theta[first : first + p.numel()], object).reshape(tuple(p.shape)))
            first += p.numel()
        return ys[-1], loss, gradient, self._twin.gradient_by_times(ys, by_y0)

    def _symbols(self, letter: str, number: int) -> list[Any]:
        found = self.hy.make_vars(*[f"{letter}{i}" for i in range(number)])
        return list(found) if number > 1 else [found]

    def _right_hand_side(self) -> list[Any]:
        problem, theta, first = self._problem, [], 0
        for p in problem.parameters:
            own = self.theta[first : first + p.numel()]
            theta.append(np.array(own, dtype=object).reshape(tuple(p.shape)))
            first += p.numel()
        held = {**{k: _floats(v) for k, v in self._twin.held.items()}, **self._held_symbols()}
        y = np.array(self.y, dtype=object)[None]
        assert problem.formula is not None
        return [self.hy.expression(x) for x in problem.formula(_symbolic(self.hy), theta, held, self.hy.time, y)[0]]

    def _held_symbols(self) -> dict[str, np.ndarray]:
        """Return symbols for each sample's own buffers, such as its noise. They follow theta among the parameters."""
        first, found = len(self.theta), {}
        for name, value in self._held.items():
            found[name] = np.array([[self.hy.par[first + i] for i in range(value.shape[1])]], dtype=object)
            first += value.shape[1]
        return found

    def _quad(self, x: Any) -> Any:
        """Convert a fifty-digit number or a double to one of 113 bits."""
        q, rest, found = self.hy.real128, FIFTY.mpf(x), self.hy.real128(0.0)
        for _ in range(3):
            part = float(rest)
            found, rest = found + q(part), rest - part
        return found

    def _parameters(self, b: int) -> list[Any]:
        own = [value[b] for value in self._held.values()]
        return [self._quad(x) for x in (*self._theta, *(x for row in own for x in row))]

    def _integrator(self, system: Any, state: Sequence[Any], b: int, t: Any, tolerance: float) -> Any:
        quad = {"fp_type": self.hy.real128, "compact_mode": True, "tol": self.hy.real128(tolerance)}
        if tolerance == 0.0:
            del quad["tol"]
        return self.hy.taylor_adaptive(system, list(state), pars=self._parameters(b), time=self._quad(t), **quad)

    def _propagate(self, integrator: Any, to: Any) -> np.ndarray:
        outcome, *_ = integrator.propagate_until(self._quad(to), max_steps=MAX_STEPS)
        if outcome != self.hy.taylor_outcome.time_limit:
            raise ArithmeticError(f"the Taylor series failed before t = {float(to):g}: {outcome}")
        return _numbers(integrator.state)

    @cached_property
    def _plain(self) -> list[tuple[Any, Any]]:
        return list(zip(self.y, self.f, strict=True))

    @cached_property
    def _variational(self) -> Any:
        return self.hy.var_ode_sys(self._plain, args=[*self.y, *self.theta], order=1)

    @cached_property
    def _adjoint(self) -> list[tuple[Any, Any]]:
        """Return the system of y, lam and q, theta's gradient: lam' = -(df/dy)^T lam, q' = -(df/dtheta)^T lam."""
        hy, dim = self.hy, len(self.y)
        lam, sums = self._symbols("l", dim), self._symbols("q", len(self.theta)) if self.theta else []
        weighted = hy.sum([a * b for a, b in zip(lam, self.f, strict=True)])
        slopes = hy.diff_tensors([weighted], diff_args=[*self.y, *self.theta], diff_order=1).gradient
        moving = zip([*lam, *sums], slopes, strict=True)
        return [*self._plain, *((x, -slope) for x, slope in moving)]

    def _states(self, b: int, tolerance: float) -> np.ndarray:
        """Return sample b's y at every time."""
        start, *times = self._twin.times
        y0 = [self._quad(x.value) for x in self._twin.y0[b]]
        integrator = self._integrator(self._plain, y0, b, start, tolerance)
        first = np.array([x.value for x in self._twin.y0[b]], dtype=object)
        return np.stack([first, *(self._propagate(integrator, t) for t in times)])

    def _by_variations(self, b: int, ys: np.ndarray, mu: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Return sum_j mu_j dy(t_j)/dy0 and sum_j mu_j dy(t_j)/dtheta from the variational equations."""
        start, *times = self._twin.times
        dim, inputs = len(self.y), len(self.y) + len(self.theta)
        state = [self._quad(x) for x in ys[0]]
        integrator = self._integrator(self._variational, state, b, start, tolerance)
        found = np.full(inputs, FIFTY.mpf(0), dtype=object)
        for t, m in zip(times, mu[1:], strict=True):
            self._propagate(integrator, t)
            # In heyoka's order: by component, then by the input of the derivative.
            rows = _numbers(integrator.state[integrator.get_vslice(order=1)]).reshape(dim, inputs)
            found = found + m @ rows
        return found[:dim], found[dim:]

    def _by_adjoint(self, b: int, ys: np.ndarray, mu: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the same from the adjoint equation, from the last output to the start. y is reset at every output."""
        times, dim = self._twin.times, len(self.y)
        lam = np.full(dim, FIFTY.mpf(0), dtype=object)
        sums = np.full(len(self.theta), FIFTY.mpf(0), dtype=object)
        integrator = None
        for j in range(len(times) - 1, 0, -1):
            lam = lam + mu[j]
            state = [self._quad(x) for x in (*ys[j], *lam, *sums)]
            if integrator is None:
                integrator = self._integrator(self._adjoint, state, b, times[j], tolerance)
            else:
                integrator.state[:] = state
            found = self._propagate(integrator, times[j - 1])
            lam, sums = found[dim : 2 * dim], found[2 * dim :]
        return lam, sums


def _is_by_sample(value: Any, problem: Problem) -> bool:
    """Return whether a buffer has a row for each sample, as the noise of a flow does."""
    return isinstance(value, np.ndarray) and value.ndim == 2 and len(value) == len(problem.y0)


def _floats(value: Any) -> Any:
    """Convert fifty-digit arrays to doubles: the constants were doubles, so this is exact."""
    return value.astype(float).astype(object) if isinstance(value, np.ndarray) else value


def _numbers(quads: np.ndarray) -> np.ndarray:
    """Convert numbers of 113 bits, each three doubles, to fifty-digit ones."""
    found = np.full(quads.shape, FIFTY.mpf(0), dtype=object)
    for _ in range(3):
        part = quads.astype(float)
        found, quads = found + array(part), quads - part.astype(quads.dtype)
    return found


def _symbolic(hy: Any) -> Any:
    """Return the arithmetic of formulas (symplectic_bench.problems.formula) over heyoka's expressions."""
    names = ("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid")
    own = {name: np.frompyfunc(getattr(hy, name), 1, 1) for name in names}
    softplus = np.frompyfunc(lambda x: hy.log(1.0 + hy.exp(x)), 1, 1)
    return SimpleNamespace(**own, softplus=softplus, stack=np.stack, concatenate=np.concatenate, pi=hy.pi)
