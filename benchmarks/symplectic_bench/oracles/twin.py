"""A problem in fifty-digit arithmetic: the same doubles, in formulas that share no code with torch."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.oracles.fifty_digits import FIFTY, FiftyDigits, Number, array, gradient, variables
from symplectic_bench.problems import Problem
from symplectic_bench.problems.problem import Recurrent

OPS: Any = FiftyDigits()


class DigitsTwin:
    """A problem to replay (see recorded_grid.Replayed) or to solve in closed form, with the gradients of its loss.

    y0 and the parameters theta are arrays of Numbers; held are the field's constants and the problem's sizes.
    """

    def __init__(self, problem: Problem):
        assert problem.formula is not None, "every standard problem has a formula"
        self._problem, self._formula = problem, problem.formula
        self.components, self.jumps = problem.components, problem.jumps
        self.t = problem.t
        self.times = list(array(problem.t))
        self.moving_t = None
        self.y0 = variables(problem.y0)
        self.theta = [variables(p) for p in problem.parameters]
        self.held = {**problem.sizes, **constants(problem.fields[0])}
        self._loss_held = constants(problem.loss)

    def component(self, i: int, y0: Any, /) -> Self:
        """Return the twin of the i-th component's problem, from where the one before it ended."""
        part, func = copy(self), self._problem.func
        part.components, part.y0 = 1, y0
        if self.components > 1:
            part.theta = self._theta_of(self._problem.fields[i])
            part.held = {**self._problem.sizes, **constants(self._problem.fields[i])}
        if isinstance(func, Recurrent) and i:
            part.y0 = func.formula(OPS, self._theta_of(func.cell), array(func.observed[i - 1]), y0)
        return part

    def _theta_of(self, module: nn.Module) -> list[np.ndarray]:
        """Return the entries of theta that are a module's parameters."""
        theta = dict(zip(map(id, self._problem.parameters), self.theta, strict=True))
        return [theta[id(p)] for p in module.parameters()]

    def number(self, x: float, /) -> Any:
        """Convert a double exactly."""
        return FIFTY.mpf(x)

    def stack(self, ys: Sequence[Any], /) -> Any:
        return np.stack(ys)

    def f(self, t: Any, y: Any, /) -> Any:
        """Evaluate the field's formula."""
        return self._formula(OPS, self.theta, self.held, t, y)

    def loss(self, ys: Any) -> Number:
        """Evaluate the loss's formula."""
        found = type(self._problem.loss).formula(OPS, self._loss_held, ys)
        return found if isinstance(found, Number) else found.item()

    def solution(self) -> Any:
        """Return ys from the closed form, which the problem must have."""
        assert self._problem.solution is not None, "the problem has no closed form"
        start, *times = self.times
        later = [self._problem.solution(OPS, self.theta, self.held, t - start, self.y0) for t in times]
        return np.stack([self.y0, *later])

    def gradient(self, loss: Number) -> list[np.ndarray]:
        """Return dL/dy0, then dL/dp for each parameter p, in the order of Problem.inputs."""
        return self._by(loss, [self.y0, *self.theta])

    def cotangents(self, ys: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return dL/dys and L at plain ys."""
        leaves: Any = np.frompyfunc(Number, 1, 1)(ys)
        loss = self.loss(leaves)
        return self._by(loss, [leaves])[0], loss.value

    def gradient_by_times(self, ys: np.ndarray, by_y0: np.ndarray) -> np.ndarray:
        """Return dL/dt, one entry per time, from plain ys and the gradient with respect to y0.

        Moving an output's time moves that output along f; moving the start's time moves the whole solution.
        """
        mu, _ = self.cotangents(ys)
        slopes = [values(self.f(t, y)) for t, y in zip(self.times, ys, strict=True)]
        by_times = [(m * k).sum() for m, k in zip((mu[0] - by_y0, *mu[1:]), slopes, strict=True)]
        return np.array(by_times, dtype=object)

    @staticmethod
    def _by(loss: Number, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = iter(gradient(loss, [x for a in inputs for x in a.ravel()]))
        return [np.array([next(found) for _ in range(a.size)], dtype=object).reshape(a.shape) for a in inputs]


def constants(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a module's buffers as arrays of fifty-digit numbers, by name."""
    return {name: array(buffer) for name, buffer in module.named_buffers()}


def doubles(numbers: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the nearest doubles and the nearest doubles to the remainders: together about thirty digits."""
    near = np.array([float(x) for x in numbers.ravel()], dtype=float).reshape(numbers.shape)
    rest = np.array([float(x - float(x)) for x in numbers.ravel()], dtype=float).reshape(numbers.shape)
    return torch.from_numpy(near), torch.from_numpy(rest)


def values(numbers: np.ndarray) -> np.ndarray:
    """Return the values of Numbers, detached from what they were computed from."""
    return np.asarray(OPS.plain(numbers), dtype=object)


def error_in_digits(found: Sequence[Tensor], expected: Sequence[np.ndarray]) -> float:
    """Return ||found - expected|| / ||expected||, in the 2-norm of all entries together, in fifty digits."""
    return error_between([array(x) for x in found], expected)


def error_between(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the same error between two sequences of fifty-digit arrays."""
    pairs = [(a, b) for x, e in zip(found, expected, strict=True) for a, b in zip(x.ravel(), e.ravel(), strict=True)]
    length = FIFTY.sqrt(sum(b * b for _, b in pairs))
    return float(FIFTY.sqrt(sum((a - b) ** 2 for a, b in pairs)) / length)
