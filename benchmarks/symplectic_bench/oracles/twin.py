"""A problem once more in numbers of fifty digits: the same doubles, by formulas that share nothing with torch."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.oracles.fifty_digits import FIFTY, FiftyDigits, Number, array, gradient, variables
from symplectic_bench.problems import Problem

OPS: Any = FiftyDigits()


class DigitsTwin:
    """What a replay and a closed form take (oracle.Replayed), differentiable by y0, the parameters and the times."""

    def __init__(self, problem: Problem):
        assert problem.formula is not None, "every family has one"
        self._problem, self._formula = problem, problem.formula
        self.components, self.jumps = problem.components, problem.jumps
        self.t = problem.t
        self.times = list(array(problem.t))
        self.y0 = variables(problem.y0)
        self.theta = [variables(p) for p in problem.parameters]
        self.held = {**problem.sizes, **held(problem.fields[0])}
        self._loss_held = held(problem.loss)

    def component(self, i: int, y0: Any, /) -> Self:
        part, parameters = copy(self), [len(list(field.parameters())) for field in self._problem.fields]
        if self.components > 1:
            part.theta = self.theta[sum(parameters[:i]) : sum(parameters[: i + 1])]
            part.held = {**self._problem.sizes, **held(self._problem.fields[i])}
        part.components, part.y0 = 1, y0
        return part

    def number(self, x: float, /) -> Any:
        return FIFTY.mpf(x)

    def stack(self, ys: Sequence[Any], /) -> Any:
        return np.stack(ys)

    def f(self, t: Any, y: Any, /) -> Any:
        return self._formula(OPS, self.theta, self.held, t, y)

    def loss(self, ys: Any) -> Number:
        found = type(self._problem.loss).formula(OPS, self._loss_held, ys)
        return found if isinstance(found, Number) else found.item()

    def solution(self) -> Any:
        """ys where they have a closed form."""
        assert self._problem.solution is not None, "it is asked of those only that have one"
        start, *times = self.times
        later = [self._problem.solution(OPS, self.theta, self.held, t - start, self.y0) for t in times]
        return np.stack([self.y0, *later])

    def gradient(self, loss: Number) -> list[np.ndarray]:
        """By y0, then by each parameter, as Problem.inputs."""
        return self._by(loss, [self.y0, *self.theta])

    def cotangents(self, ys: np.ndarray) -> tuple[np.ndarray, Any]:
        """dL/dys and L, of plain ys."""
        leaves: Any = np.frompyfunc(Number, 1, 1)(ys)
        loss = self.loss(leaves)
        return self._by(loss, [leaves])[0], loss.value

    def gradient_by_times(self, ys: np.ndarray, by_y0: np.ndarray) -> np.ndarray:
        """From plain ys and the gradient by y0: an output moves along f, and the start takes all that follows along."""
        mu, _ = self.cotangents(ys)
        slopes = [values(self.f(t, y)) for t, y in zip(self.times, ys, strict=True)]
        along = [(m * k).sum() for m, k in zip((mu[0] - by_y0, *mu[1:]), slopes, strict=True)]
        return np.array(along, dtype=object)

    @staticmethod
    def _by(loss: Number, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = iter(gradient(loss, [x for a in inputs for x in a.ravel()]))
        return [np.array([next(found) for _ in range(a.size)], dtype=object).reshape(a.shape) for a in inputs]


def held(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's buffers, as constants."""
    return {name: array(buffer) for name, buffer in module.named_buffers()}


def doubles(numbers: np.ndarray) -> tuple[Tensor, Tensor]:
    """The nearest doubles, and the nearest to what is left: together some thirty digits."""
    near = np.array([float(x) for x in numbers.ravel()], dtype=float).reshape(numbers.shape)
    rest = np.array([float(x - float(x)) for x in numbers.ravel()], dtype=float).reshape(numbers.shape)
    return torch.from_numpy(near), torch.from_numpy(rest)


def values(numbers: np.ndarray) -> np.ndarray:
    """Without what they were computed from."""
    return np.asarray(OPS.plain(numbers), dtype=object)


def error_in_digits(found: Sequence[Tensor], expected: Sequence[np.ndarray]) -> float:
    """||found - expected|| / ||expected||, the 2-norm of all entries together (oracle.relative_error)."""
    return error_between([array(x) for x in found], expected)


def error_between(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The same of fifty-digit numbers."""
    pairs = [(a, b) for x, e in zip(found, expected, strict=True) for a, b in zip(x.ravel(), e.ravel(), strict=True)]
    length = FIFTY.sqrt(sum(b * b for _, b in pairs))
    return float(FIFTY.sqrt(sum((a - b) ** 2 for a, b in pairs)) / length)
