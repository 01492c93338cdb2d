"""The transpose of one Runge-Kutta step: the symplectic adjoint method in division-free form.

With lam = dL/dy+ and mu_m = dL/dy(sigma_m), stages from the last to the first:

    w_i = h (b_i lam + sum_m b_i(sigma_m) mu_m + sum_{j>i} a_ji l_j)
    l_i, tau_i, theta_i = w_i^T (df/dy, df/dt, df/dtheta)(t_i, Y_i)
    y_bar = lam + sum_m mu_m + sum_i l_i,   theta_bar = sum_i theta_i

Matsubara, Miyatake and Yaguchi (NeurIPS 2021, arXiv:2102.09750): with Lambda_i = w_i / (h b_i) this is their
method, the Runge-Kutta method on the adjoint equation that conserves lam^T delta. Without the division
b_i = 0 is no special case. For times, with f's value k_i at hand from the same call,

    sigma_bar_m = h mu_m . sum_i b_i'(sigma_m) k_i,            t_out_bar_m = sigma_bar_m / h
    t_bar = sum_i tau_i - sum_m sigma_bar_m / h
    h_bar = sum_i k_i . w_i / h + sum_i c_i tau_i - sum_m sigma_m sigma_bar_m / h

where sum_i k_i . w_i / h gathers by k what docs/derivation.md writes by cotangent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from symplectic_adjoint.field import Field, Vjp
from symplectic_adjoint.step import Step


@dataclass(frozen=True)
class OutputCotangent:
    """mu = dL/dy(sigma) of output j, which is dense output of the step."""

    j: int
    sigma: float
    mu: Tensor


@dataclass
class StepCotangents:
    """Cotangents of what went into a step; of its times only where asked for."""

    y_bar: Tensor
    t_bar: Tensor | float = 0.0
    h_bar: Tensor | float = 0.0
    output_bars: dict[int, Tensor | float] = field(default_factory=dict)


def transpose_step(
    f: Field,
    step: Step,
    lam: Tensor,
    outputs: Sequence[OutputCotangent],
    add_params: Callable[[Sequence[Tensor | None]], None],
    *,
    with_time: bool,
) -> StepCotangents:
    """Pulls lam and the outputs' cotangents back through a step of plain states.

    One f is on the graph at a time. The step must know k_1 .. k_{s-1}, and its end where a dense output
    needs f there; it is used up: each k_i is dropped as soon as no earlier state needs it.
    """
    tableau, h = step.tableau, step.h
    assert isinstance(h, float)  # times are plain numbers here: their cotangents have formulas of their own
    s, A = tableau.stages, tableau.floats.A
    weights = [tableau.interpolant.weights_at(o.sigma) for o in outputs]
    rows = max(s, tableau.interpolant.rows) if outputs else s
    with torch.no_grad():
        step.evaluate(max(s, rows - 1) if rows > s + 1 else 0)  # stages that only an interpolant needs
    times = _TimeSums(step, h, outputs) if with_time else None
    l: list[Tensor | None] = [None] * rows  # noqa: E741 (the paper's name)
    for i in reversed(range(rows)):
        terms = [(tableau.floats.b[i], lam)] if i < s else []
        terms += [(weight[i], o.mu) for weight, o in zip(weights, outputs, strict=True)]
        terms += [(A[j][i], l_j) for j in range(i + 1, rows) if (l_j := l[j]) is not None]
        w = _weighted_sum(h, terms)
        if w is None:
            if times is None or not times.uses(i):
                continue
            w = torch.zeros_like(lam)
        vjp = f.vjp(step.time(i), step.state(i), w, with_time=with_time)
        del step.ks[i:]
        l[i] = vjp.y_bar
        add_params(vjp.param_bars)
        if times is not None:
            times.add(i, vjp, w)
    y_bar = lam.clone()
    for term in (*(o.mu for o in outputs), *l):
        if term is not None:
            y_bar.add_(term)
    return StepCotangents(y_bar) if times is None else times.cotangents(y_bar)


def _weighted_sum(h: float, terms: Sequence[tuple[float, Tensor]]) -> Tensor | None:
    """h sum of weight x, None where every weight is zero."""
    total: Tensor | None = None
    for weight, x in terms:
        if weight == 0.0:
            continue
        if total is None:
            total = x * (h * weight)
        else:
            total.add_(x, alpha=h * weight)
    return total


class _TimeSums:
    """The sums over stages that the time cotangents are made of, in float64."""

    def __init__(self, step: Step, h: float, outputs: Sequence[OutputCotangent]):
        self._h = h
        self._c = step.tableau.floats.c
        self._outputs = outputs
        self._slopes = [step.tableau.interpolant.slopes_at(o.sigma) for o in outputs]
        self._tau: Tensor | float = 0.0
        self._c_tau: Tensor | float = 0.0
        self._k_w: Tensor | float = 0.0
        self._sigma_bars: list[Tensor | float] = [0.0] * len(outputs)

    def uses(self, i: int) -> bool:
        """Whether k_i is needed though its w_i is zero."""
        return any(slope[i] != 0.0 for slope in self._slopes)

    def add(self, i: int, vjp: Vjp, w: Tensor) -> None:
        if vjp.t_bar is not None:
            tau = vjp.t_bar.double()
            self._tau = self._tau + tau
            self._c_tau = self._c_tau + self._c[i] * tau
        self._k_w = self._k_w + inner(vjp.k, w)
        for m, (output, slope) in enumerate(zip(self._outputs, self._slopes, strict=True)):
            if slope[i] != 0.0:
                self._sigma_bars[m] = self._sigma_bars[m] + self._h * slope[i] * inner(output.mu, vjp.k)

    def cotangents(self, y_bar: Tensor) -> StepCotangents:
        h, bars = self._h, self._sigma_bars
        return StepCotangents(
            y_bar,
            t_bar=self._tau - sum(bars) / h,
            h_bar=self._k_w / h
            + self._c_tau
            - sum(o.sigma * bar for o, bar in zip(self._outputs, bars, strict=True)) / h,
            output_bars={o.j: bar / h for o, bar in zip(self._outputs, bars, strict=True)},
        )


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Re sum conj(a) b in float64: how a real loss changes with a real factor of a, b being its cotangent."""
    if a.is_complex():
        return inner(torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj()))
    return (a.double() * b.double()).sum()
