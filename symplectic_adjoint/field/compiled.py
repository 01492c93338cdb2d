"""compile=True: the f calls of a step, and the VJP of one stage, as machine code.

torch.compile traces func as a whole and guards its assumptions. Each pass over the steps checks the guards once and
then calls the code directly, because checking them takes as long as a small network. Step sizes, times and coefficients
are inputs of the code, so that all steps share it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import find_cpp_compiler, require_compiler_names
from symplectic_adjoint.errors import CompilerNotFound, UnsupportedCombination
from symplectic_adjoint.field.call_counters import CallCounters
from symplectic_adjoint.field.traced_function import BoundCode, traced_function
from symplectic_adjoint.methods.tableau import ButcherTableau, FloatTerms


@cache
def require_compiler() -> None:
    """Raise CompilerNotFound if there is no C++ compiler, before anything is traced.

    Raises UnsupportedCombination if PyTorch is older than 2.13, ImportError if it lacks a private name that is needed.
    """
    if torch.__version__ < "2.13":  # 2.11 has the setting trace_autograd_ops too, and cannot trace
        raise UnsupportedCombination(f"compile=True needs PyTorch 2.13 or later, got {torch.__version__}")
    require_compiler_names()
    try:
        find_cpp_compiler()
    except Exception as error:
        raise CompilerNotFound(
            f"compile=True needs a C++ compiler, and none was found ({error}): install g++ or clang++, or name one in "
            "the environment variable CXX before Python starts; or leave compile out"
        ) from error


def _add_terms(start: Tensor | None, h: Tensor, terms: FloatTerms, ks: Sequence[Tensor]) -> Tensor:
    total = start
    for i, weight in terms:
        term = (h * weight).to(ks[i].dtype) * ks[i]
        total = term if total is None else total + term
    assert total is not None
    return total


def _as_output(x: Tensor) -> Tensor:
    """Return a copy that is not an input, with the strides that the code expects when it is an input later."""
    return x.clone(memory_format=torch.contiguous_format)


def _step(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return the new k_i, y+ and the error estimates of a step.

    tensors: scalars = (h, t_1 .. t_rows), y, and k_1 if it is known.
    """
    func, time_dtype, A, b, errors, s, rows = constants
    scalars, y, *ks = tensors
    known, h, end = len(ks), scalars[0], []
    for i in range(known, rows):
        Y = end[0] if i == s else _add_terms(y, h, A[i], ks)
        ks.append(_as_output(func(scalars[1 + i].to(time_dtype), Y).to(y.dtype)))
        if i == s - 1:
            end = [_as_output(y + _add_terms(None, h, b, ks))]
    return (*ks[known:], *end, *(_add_terms(None, h, terms, ks) for terms in errors))


def _stage_vjp(constants: tuple[Any, ...], tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return which of theta f depends on, l_i, k_i and, with times, tau_i and w_i. Add to theta_bar in place.

    tensors: scalars = (t_i, h a_i1 .., h b_i, h a_2i ..), y, k_1 .. k_{s-1}, lam, l_2 .. l_s, theta_bar. All stages
    share this code, because the coefficients are inputs, zero if a stage has no such term.
    """
    func, time_dtype, params, s, with_time = constants
    scalars, y, *tensors = tensors
    n = s - 1
    ks, lam, ls, theta_bar = tensors[:n], tensors[n], tensors[n + 1 : 2 * n + 1], tensors[2 * n + 1 :]
    Y, w = y, scalars[1 + n].to(y.dtype) * lam
    for j in range(n):
        Y = Y + scalars[1 + j].to(y.dtype) * ks[j]
        w = w + scalars[2 + n + j].to(y.dtype) * ls[j]
    with torch.enable_grad():
        Y = Y.detach().requires_grad_()
        time = scalars[0].to(time_dtype).detach()
        if with_time:
            time = time.requires_grad_()
        k = func(time, Y).to(y.dtype)
        inputs = (Y, time, *params) if with_time else (Y, *params)
        bars = torch.autograd.grad(k, inputs, w, allow_unused=True) if k.requires_grad else (None,) * len(inputs)
    of_params = bars[len(inputs) - len(params) :]
    for total, bar in zip(theta_bar, of_params, strict=True):
        if bar is not None:
            total.add_(bar)
    l = torch.zeros_like(w) if bars[0] is None else _as_output(bars[0])  # noqa: E741 (the paper's name)
    used = tuple(bar is not None for bar in of_params)
    k = _as_output(k.detach())
    if not with_time:
        return used, l, k
    tau = torch.zeros_like(time) if bars[1] is None else bars[1].clone()
    return used, l, k, tau, _as_output(w)


class CompiledSteps:
    """Compiled steps and stage VJPs for one pass; the first call of each kind binds code to func's current tensors."""

    def __init__(
        self, func: Any, tableau: ButcherTableau, like: Tensor, time_dtype: torch.dtype, counters: CallCounters
    ):
        self._func, self._tableau, self._like, self._time_dtype = func, tableau, like, time_dtype
        self.counters = counters
        self._bound: dict[Any, BoundCode] = {}
        self._params: Sequence[Tensor] = ()
        self._zero = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._coefficients = _stage_coefficients(tableau)

    def for_another_pass(self) -> "CompiledSteps":
        """Return a copy without bound code: func may use other tensors in another pass."""
        return CompiledSteps(self._func, self._tableau, self._like, self._time_dtype, self.counters)

    def evaluate(
        self, h: float, times: Sequence[float], y: Tensor, ks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """Return the k_i of a step that are not known yet, its y+ and its error estimates.

        times: those of all rows up to the last one to evaluate. ks: the first k_i, if known already. y+ is None and
        there are no error estimates if they need more rows.
        """
        return self.evaluate_on(torch.tensor([h, *times], dtype=torch.float64, device=self._like.device), y, ks)

    def evaluate_on(
        self, scalars: Tensor, y: Tensor, ks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor | None, list[Tensor]]:
        """Evaluate a step like evaluate, with h and the times in a float64 tensor on the device."""
        terms, s, rows, known = self._tableau.terms, self._tableau.stages, len(scalars) - 1, len(ks)
        errors = terms.errors if all(e[-1][0] < rows for e in terms.errors) else ()
        constants = (self._func, self._time_dtype, terms.A, terms.b, errors, s, rows)
        key = (known, rows)
        new = rows - known
        computed = self._run(_step, key, constants, [scalars, *_contiguous((y, *ks))], calls=new)
        has_end = rows >= s
        return computed[:new], computed[new] if has_end else None, computed[new + has_end :]

    def stage_scalars(self, h: float, times: Sequence[float]) -> list[Tensor]:
        """Return the scalars of every stage of a step, as stage_vjp takes them: a float64 tensor of 2 s each."""
        table = [[t, *(h * a for a in row)] for t, row in zip(times, self._coefficients, strict=True)]
        return list(torch.tensor(table, dtype=torch.float64, device=self._like.device).unbind())

    @property
    def stage_coefficients(self) -> list[list[float]]:
        """The coefficients that stage_vjp takes times h, after the time: 2 s - 1 for each stage."""
        return self._coefficients

    def stage_vjp(
        self,
        scalars: Tensor,
        y: Tensor,
        ks: Sequence[Tensor],
        lam: Tensor,
        ls: Sequence[Tensor | None],
        params: Sequence[Tensor],
        theta_bar: Sequence[Tensor],
        *,
        with_time: bool,
    ) -> list[Any]:
        """Return which of params f depends on, l_i, k_i and, with_time, tau_i and w_i. Add to theta_bar in place.

        scalars: those of stage i. ks: k_1 .. k_{i-1}. ls: l_1 .. l_s, None for those that are unknown or zero. Raises
        UnsupportedCombination if func reaches a trainable tensor that is not one of params.
        """
        s, zero = self._tableau.stages, self._zero
        before = [*ks[: s - 1], *[zero] * (s - 1 - len(ks))]
        after = [zero if l is None else l for l in ls[1:s]]  # noqa: E741 (the paper's name)
        constants = (self._func, self._time_dtype, tuple(params), s, with_time)
        self._params = params
        states = _contiguous((y, *before, lam, *after))
        return self._run(_stage_vjp, with_time, constants, [scalars, *states, *theta_bar], calls=1)

    def _run(
        self, fn: Callable[..., Any], key: Any, constants: tuple[Any, ...], tensors: Sequence[Tensor], *, calls: int
    ) -> list[Any]:
        bound = self._bound.get((fn, key))
        if bound is not None:
            self.counters.add(calls)
            return bound(tensors)
        traced = traced_function(fn, self._func, (self._tableau.name, self._like.dtype, self._like.shape, key))
        distinct = [x.detach() for x in tensors]  # one object passed twice would be traced as one input
        results, bound = traced.bind(constants, distinct, self.counters, calls)
        if traced.compilations > traced.checked:
            self._refuse_counters_that_matter(distinct[0][1 if fn is _step else 0], distinct[1])
            traced.checked = traced.compilations
        if fn is _stage_vjp:
            bound.require_parameters_among(self._params)
        self._bound[fn, key] = bound
        return list(results)

    def _refuse_counters_that_matter(self, t: Tensor, y: Tensor) -> None:
        """Raise UnsupportedCombination if func's value depends on a counter, which compiled code takes to be zero."""
        if not self.counters.found:
            return
        values = []
        for count in (0, 10**6):
            with self.counters.at(count), torch.no_grad():
                values.append(self._func(t.to(self._time_dtype), y))
        if not torch.equal(*values):
            names = ", ".join(x.path for x in self.counters.found)
            raise UnsupportedCombination(
                f"compile=True: func's value depends on a number that every call changes ({names}), so it is no "
                "function of t and y: leave that number out"
            )


def _contiguous(states: Sequence[Tensor]) -> list[Tensor]:
    """Return states with the strides that the code was compiled for, from which those of y0 may differ."""
    return [x.contiguous() for x in states]


def _stage_coefficients(tableau: ButcherTableau) -> list[list[float]]:
    """Return, for each stage i, a_i1 .. a_i,s-1, b_i, a_2i .. a_si."""
    s, A, b = tableau.stages, tableau.floats.A, tableau.floats.b
    rows = []
    for i in range(s):
        before = [A[i][j] if j < i else 0.0 for j in range(s - 1)]
        after = [A[j][i] if j > i else 0.0 for j in range(1, s)]
        rows.append([*before, b[i], *after])
    return rows
