"""One step of an explicit Runge-Kutta method, evaluated lazily.

    Y_i = y + h sum_{j<i} a_ij k_j,   k_i = f(t + c_i h, Y_i),   y+ = y + h sum_i b_i k_i,
    y(sigma) = y + h sum_i b_i(sigma) k_i

Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, eq. II.1.8 and II.6.1.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from symplectic_adjoint.errors import NonFiniteError, Place
from symplectic_adjoint.field.captured import CapturableField, CapturedSteps
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.few_launches import is_small
from symplectic_adjoint.field.fills import Fills
from symplectic_adjoint.field.finite import first_non_finite
from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.field.time_tensors import TimeTensors
from symplectic_adjoint.field.times import Time, number
from symplectic_adjoint.field.transforms import batched
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.dense_outputs import FEWEST_AT_ONCE, most_at_once, outputs_together
from symplectic_adjoint.steps.pushed_sums import PushedSums


class RightHandSide(Protocol):
    """The function f(t, y) that a step integrates, and what a step needs to know of it."""

    f_calls: int

    @property
    def code(self) -> CompiledSteps | CapturedSteps | None:
        """Code that evaluates all stages at once; None if each stage is a call of its own."""
        ...

    @property
    def resolution(self) -> Resolution | None:
        """The resolution of f's values, if that is coarser than the state's."""
        ...

    @property
    def times(self) -> TimeTensors:
        """The times as f is passed them."""
        ...

    @property
    def fills(self) -> Fills:
        """Constants like the state."""
        ...

    def __call__(self, t: Time, y: Tensor, /) -> Tensor:
        """Return f(t, y), like y, and count the call in f_calls."""
        ...

    def adjacent_time(self, t: Time, direction: float) -> Time:
        """Return the next time after t, in the direction of this sign, that f can distinguish from t."""
        ...

    def restart(self) -> None:
        """Prepare for calls beyond a jump, where f may be a different function."""
        ...

    def place(self, index: int) -> Place:
        """Return the place in the state of an entry of the flattened y."""
        ...


def _add_terms(start: Tensor | None, h: Time, terms: Iterable[tuple[Time, Tensor]]) -> Tensor | None:
    """Return start + h sum weight x over the terms (weight, x) as one new tensor, or start itself without terms.

    Float weights are added by in-place multiply-adds, which save nothing for the graph. Tensor weights, from
    differentiable times, need a product each.
    """
    total = start
    for weight, x in terms:
        scale = h * weight
        if type(scale) is not float:
            term = torch.as_tensor(scale, dtype=x.dtype, device=x.device) * x
            total = term if total is None else total + term
        elif total is None:
            total = x * scale
        elif total is start:
            total = torch.add(total, x, alpha=scale)
        else:
            total.add_(x, alpha=scale)
    return total


def combine(y: Tensor, h: Time, terms: Sequence[tuple[int, Time]], ks: Sequence[Tensor]) -> Tensor:
    """Return y + h sum weight k_i over the terms (i, weight) as one new tensor, or y itself if there are no terms."""
    total = _add_terms(y, h, [(weight, ks[i]) for i, weight in terms])
    assert total is not None
    return total


def advance(y: Tensor, h: Time, terms: Sequence[tuple[int, Time]], ks: Sequence[Tensor]) -> Tensor:
    """Return what combine does, with y added last: rounded once in the precision of y, however many terms there are.

    For states that are passed on, where the rounding errors of all steps add up.
    """
    if len(terms) < 2 or batched(y):  # vmap: y may be a batch where the terms are not, so not in place
        return combine(y, h, terms, ks)
    increment = weighted_sum(h, [(weight, ks[i]) for i, weight in terms])
    assert increment is not None
    return increment.add_(y)


def nonzero(weights: Iterable[Time]) -> list[tuple[int, Time]]:
    """Return (index, weight) pairs, leaving out weights that are the float zero."""
    return [(i, weight) for i, weight in enumerate(weights) if not (type(weight) is float and weight == 0.0)]


def weighted_sum(h: Time, terms: Iterable[tuple[Time, Tensor]]) -> Tensor | None:
    """Return h sum weight x over the terms (weight, x) as one new tensor, or None if there are no terms."""
    return _add_terms(None, h, terms)


class Step:
    """A step of size h from (t, y). Stages are evaluated when first needed and kept in `ks`.

    ks: the leading stages if they are known (k_1 from the previous step, or stored stages). end: y+ if it is known.
    t_end: the time at the end of the step, which is t + h or exactly the time that the step is pinned to.
    open_ends: whether f jumps at the start and at the end; there it is evaluated just inside the step.
    """

    __slots__ = (
        *("_end", "_errors", "_program", "_pushed", "_sums", "_versions"),
        *("f", "h", "ks", "open_ends", "t", "t_end", "tableau", "y"),
    )

    def __init__(
        self,
        f: RightHandSide,
        tableau: ButcherTableau,
        t: Time,
        h: Time,
        t_end: Time,
        y: Tensor,
        ks: Sequence[Tensor] = (),
        end: Tensor | None = None,
        open_ends: tuple[bool, bool] = (False, False),
        companion: Tensor | None = None,
    ):
        del companion  # for steps that carry more than y
        self.f, self.tableau = f, tableau
        self.open_ends = open_ends
        self.t, self.h, self.t_end, self.y = t, h, t_end, y
        self.ks = list(ks)
        self._versions = [_version(k) for k in ks]
        self._end = end
        self._errors: list[Tensor] = []
        self._program: CapturedSteps | None = None
        self._sums: PushedSums | None = None
        """The step's sums, if they are formed together; their terms are the first `_pushed` stages."""
        self._pushed = 0

    def time(self, i: int) -> Time:
        """Return the time of stage i: t_end itself if c = 1, so that k_1 of the next step is the same call."""
        c = self.tableau.floats.c[i]
        if c == 0.0:
            return self.f.adjacent_time(self.t, number(self.h)) if self.open_ends[0] else self.t
        if c == 1.0 or (c > 1.0 and self.open_ends[1]):  # beyond a jump f would be another function
            return self.time_of_end()
        return self.t + c * self.h

    def time_of_end(self) -> Time:
        """Return the time at which f is evaluated at the end of the step."""
        return self.f.adjacent_time(self.t_end, -number(self.h)) if self.open_ends[1] else self.t_end

    def state(self, i: int) -> Tensor:
        """Return Y_i, from the stages before it; row s of the extended tableau is the end of the step."""
        if i == self.tableau.stages:
            return self.end()
        if i < self.tableau.stages and (sums := self._pushed_sums(self.ks[:i])) is not None:
            known = sums.get(i)
            if known is not None:
                return known
        return combine(self.y, self.h, self.tableau.terms.A[i], self.ks)

    def evaluating(self, i: int) -> Any:
        """Return a context in which f is the function that row i evaluates: f itself, unless the method is additive."""
        del i
        return nullcontext()

    def pop(self, i: int) -> Tensor:
        """Return Y_i and forget the stages from i on."""
        del self.ks[i:]
        return self.state(i)

    def evaluate(self, rows: int) -> list[Tensor]:
        """Return at least k_1 .. k_rows, calling f for those that are not known yet."""
        if rows > len(self.ks) + 1 and len(self.ks) <= 1 and isinstance(code := self.f.code, CompiledSteps):
            times = [number(self.time(i)) for i in range(rows)]
            new, end, self._errors = code.evaluate(number(self.h), times, self.y, self.ks)
            self.f.f_calls += len(new)
            self._end = end if self._end is None else self._end
            self._add(new)
        while len(self.ks) < rows:
            if len(self.ks) <= 1 and isinstance(code := self.f.code, CapturedSteps):
                self._run(code, max(rows, self.tableau.stages))
            else:
                i = len(self.ks)
                self._add([self.f(self.time(i), self.state(i))])
        return self.ks

    def _run(self, code: CapturedSteps, rows: int) -> None:
        """Evaluate the other stages by a captured program, the next use of which overwrites them."""
        times = [number(self.time(i)) for i in range(rows)]
        self.ks, end, calls = code.evaluate(cast(CapturableField, self.f), number(self.h), times, self.y, self.ks)
        self.f.f_calls += calls
        self._end = end if self._end is None else self._end
        self._program = code
        self._versions = [None] * len(self.ks)  # programs write into them

    def _add(self, new: Sequence[Tensor]) -> None:
        self.ks += new
        self._versions += [_version(k) for k in new]

    @property
    def captured(self) -> bool:
        """Whether a captured program evaluated the step, the next use of which overwrites its stages."""
        return self._program is not None

    def own_stages(self, count: int) -> list[Tensor]:
        """Return the first stages as tensors that no later step overwrites."""
        ks = self.ks[:count]
        return ks if self._program is None else [k.clone() for k in ks]

    def measured_norms(self) -> list[float] | None:
        """Return the norms of the error estimates, if a program measures them; this waits for the device."""
        self.evaluate(self._rows_of_errors())
        return (
            None
            if self._program is None or not self._program.measures
            else self._program.read_norms(len(self.tableau.terms.errors))
        )

    def _rows_of_errors(self) -> int:
        return 1 + max(terms[-1][0] for terms in self.tableau.terms.errors)

    def end(self) -> Tensor:
        """Return y+ = y + h sum_i b_i k_i."""
        if self._end is None:
            ks = self.evaluate(self.tableau.stages)
            self._refuse_overwritten()
            if self._end is None:  # code evaluates it with the stages
                self._end = self.end_of(ks)
            if self._sums is not None:
                self._sums.drop_below(self.tableau.stages)
        return self._end

    def end_of(self, ks: Sequence[Tensor]) -> Tensor:
        """Return y+ as these stages make it, a new tensor. Those that the step holds or held are among them."""
        s = self.tableau.stages
        total = None if (sums := self._pushed_sums(ks[:s])) is None else sums.pop(s)
        if total is None:
            return advance(self.y, self.h, self.tableau.terms.b, ks)
        return total if len(self.tableau.terms.b) < 2 else total.add_(self.y)

    def _pushed_sums(self, ks: Sequence[Tensor]) -> PushedSums | None:
        """Return the step's sums with these leading stages added; None if each sum is formed where it is needed."""
        if type(h := self.h) is not float or not is_small(self.y):
            return None
        if self._sums is None:
            from_y = self.tableau.stages + (len(self.tableau.terms.b) < 2)  # y+ of one term is rounded as in advance()
            self._sums = PushedSums(self.f.fills, self.y, range(from_y))
        for i in range(self._pushed, len(ks)):
            self._sums.push(ks[i], [(n, h * weight) for n, weight in self.tableau.terms.pushes[i]])
            self._pushed = i + 1
        return self._sums

    def end_slope(self) -> Tensor | None:
        """Return f at the end of the step, k_1 of the next one; None if it was not evaluated or f jumps there."""
        s = self.tableau.stages
        return self.ks[s] if len(self.ks) > s and not self.open_ends[1] else None

    def end_companion(self) -> Tensor | None:
        """Return the second state that the next step carries: none, for a Runge-Kutta method."""

    def output(self, sigma: Time) -> Tensor:
        """Return y(sigma), the dense output at the fraction sigma of the step."""
        interpolant = self.tableau.interpolant
        weights = interpolant.weights_at(sigma)[: interpolant.rows]  # those beyond are zeros, in sigma's type
        return advance(self.y, self.h, nonzero(weights), self.evaluate(interpolant.rows))

    def outputs(self, sigmas: Sequence[float], into: Tensor | None = None) -> list[Tensor]:
        """Return y(sigma) at these numbers sigma, stacked, as many at a time as are best formed at once.

        They are formed in `into` if it is given, which has a row for each.
        """
        interpolant, most, slabs = self.tableau.interpolant, self.most_outputs_at_once(), list[Tensor]()
        for first in range(0, len(sigmas), most):
            some = sigmas[first : first + most]
            rows = None if into is None else into[first : first + most]
            if len(some) >= FEWEST_AT_ONCE:
                ks = self.evaluate(interpolant.rows)
                slabs.append(outputs_together(self.y, number(self.h), interpolant, some, ks, rows))
                continue
            for n, sigma in enumerate(some):
                y = self.output(sigma)[None]
                slabs.append(y if rows is None else rows[n : n + 1].copy_(y))
        return slabs

    def most_outputs_at_once(self) -> int:
        """Return how many outputs are formed at once; 1 if they are formed one by one."""
        return most_at_once(self.y)

    def slope(self, sigma: float) -> Tensor:
        """Return dy/dt of the dense output at the fraction sigma of the step."""
        interpolant = self.tableau.interpolant
        zero = torch.zeros((), dtype=self.y.dtype, device=self.y.device)
        slope = combine(zero, 1.0, nonzero(interpolant.slopes_at(sigma)), self.evaluate(interpolant.rows))
        return slope.expand_as(self.y)

    def errors(self) -> list[Tensor]:
        """Return the local error estimates h sum_i e_i k_i: one, or two for dop853.

        They are never on the graph, and the caller may overwrite them.
        """
        estimates, h = self.tableau.terms.errors, number(self.h)
        ks = self.evaluate(self._rows_of_errors())
        if self._errors:
            known, self._errors = self._errors, []
            return known
        with without_graph():
            pushed = self._pushed_errors(ks)
            if pushed is not None:
                return pushed
            sums = [weighted_sum(h, [(weight, ks[i]) for i, weight in terms]) for terms in estimates]
        return [x for x in sums if x is not None]

    def _pushed_errors(self, ks: Sequence[Tensor]) -> list[Tensor] | None:
        """Return the sums of errors() if they were formed together with the states, the first time."""
        terms = self.tableau.terms
        if self._sums is None or (sums := self._pushed_sums(ks[: len(terms.pushes)])) is None:
            return None
        first = self.tableau.stages + 1
        found = [sums.pop(i) for i in range(first, first + len(terms.errors))]
        known = [x for x in found if x is not None]
        return known if len(known) == len(found) else None

    def rounding(self, resolution: Resolution) -> list[Tensor]:
        """Return eps h sum_i |e_i| |k_i| for each error estimate: twice the most that rounding f's values adds."""
        h = abs(number(self.h))
        with without_graph():
            sums = [
                weighted_sum(h, [(abs(weight), self.ks[i].abs()) for i, weight in terms])
                for terms in self.tableau.terms.errors
            ]
            return [x.mul_(resolution.eps) for x in sums if x is not None]

    def non_finite_error(self, accepted: int) -> NonFiniteError:
        """Return the error for a step that is not finite, naming the first place where it is not.

        accepted: the number of steps accepted before this one.
        """
        for i, k in enumerate(self.ks):
            index = first_non_finite(k)
            if index is not None:
                place = self.f.place(index)
                where = f"t = {number(self.time(i)):.9g} (step {accepted}, stage {i + 1})"
                value = k.flatten()[index].item()
                return NonFiniteError(f"func returned a value that is not finite at {where}: {place} is {value}", place)
        index = first_non_finite(self.end())
        place = None if index is None else self.f.place(index)
        found = f"{place} is {self.end().flatten()[index].item()}" if place else "its error estimate overflowed"
        return NonFiniteError(
            f"the state stopped being finite in step {accepted} from t = {number(self.t):.9g} by "
            f"h = {number(self.h):.3g}: {found}",
            place,
        )

    def _refuse_overwritten(self) -> None:
        """Raise ValueError if func has since written into a stage: stages are the tensors that func returned."""
        for k, version in zip(self.ks, self._versions, strict=False):
            if version is not None and k._version != version:
                raise ValueError(
                    "func wrote into a tensor that it had returned before: return a new one from each call"
                )


def _version(k: Tensor) -> int | None:
    return None if k.is_inference() else k._version
