"""The sums in the transpose of a step, formed stage by stage, from the last to the first.

w_i = h (b_i lam + sum_m b_i(sigma_m) mu_m + sum_{j>i} a_ji l_j),   y_bar - lam = sum_m mu_m + sum_i l_i
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from symplectic_adjoint.field.fills import Fills
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.pushed_sums import PushedSums
from symplectic_adjoint.steps.runge_kutta import weighted_sum


class Weighted(NamedTuple):
    """A term of the sums from an output, or a sum over outputs: a weight times mu for w_i, mu or nothing for y_bar.

    The weights are the b_i(sigma) of an output.
    """

    weights: Sequence[float]
    mu: Tensor
    of_y: bool


class CotangentSums(Protocol):
    """The sums of one step."""

    def has_terms(self, i: int) -> bool:
        """Return whether w_i has terms; l_j of all later stages have been added."""
        ...

    def take(self, i: int) -> Tensor | None:
        """Return w_i, None without terms. Called once for each i."""
        ...

    def add(self, i: int, l_i: Tensor | None) -> None:
        """Add the terms that l_i makes; None if it is zero."""
        ...

    def y_terms(self) -> list[Tensor]:
        """Return the terms of y_bar - lam."""
        ...


class SumsInTurn:
    """Forms each w_i when it is needed, from the l_j, which are kept."""

    def __init__(self, tableau: ButcherTableau, h: float, lam: Tensor, outputs: Sequence[Weighted]):
        self._h, self._lam, self._outputs, self._stages = h, lam, outputs, tableau.stages
        self._b, self._columns = tableau.floats.b, tableau.terms.columns
        self._l: list[Tensor | None] = [None] * len(self._columns)

    def _terms(self, i: int) -> list[tuple[float, Tensor]]:
        b, l = self._b, self._l  # noqa: E741 (the paper's name)
        terms = [(b[i], self._lam)] if i < self._stages and b[i] != 0.0 else []
        terms += [(x.weights[i], x.mu) for x in self._outputs if x.weights[i] != 0.0]
        return terms + [(a_ji, l_j) for j, a_ji in self._columns[i] if (l_j := l[j]) is not None]

    def has_terms(self, i: int) -> bool:
        return bool(self._terms(i))

    def take(self, i: int) -> Tensor | None:
        return weighted_sum(self._h, self._terms(i))

    def add(self, i: int, l_i: Tensor | None) -> None:
        self._l[i] = l_i

    def y_terms(self) -> list[Tensor]:
        return [x for x in (*(x.mu for x in self._outputs if x.of_y), *self._l) if x is not None]


class SumsTogether:
    """Adds each term to all of its sums when it is known: one launch a term, and no l_i is kept."""

    Y_BAR = -1

    def __init__(self, tableau: ButcherTableau, h: float, lam: Tensor, outputs: Sequence[Weighted], fills: Fills):
        self._h, self._rows = h, tableau.terms.A
        self._sums = PushedSums(fills)
        self._sums.push(lam, [(i, h * b_i) for i, b_i in tableau.terms.b])
        for x in outputs:
            self._push(x.mu, enumerate(x.weights), of_y=x.of_y)

    def _push(self, x: Tensor, weights: Iterable[tuple[int, float]], *, of_y: bool = True) -> None:
        y_bar = [(self.Y_BAR, 1.0)] if of_y else []
        self._sums.push(x, [*y_bar, *((i, self._h * weight) for i, weight in weights if weight != 0.0)])

    def has_terms(self, i: int) -> bool:
        return self._sums.get(i) is not None

    def take(self, i: int) -> Tensor | None:
        return self._sums.pop(i)

    def add(self, i: int, l_i: Tensor | None) -> None:
        if l_i is not None:
            self._push(l_i, self._rows[i])

    def y_terms(self) -> list[Tensor]:
        y_bar = self._sums.pop(self.Y_BAR)
        return [] if y_bar is None else [y_bar]
