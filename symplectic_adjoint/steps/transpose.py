"""The transpose of one Runge-Kutta step: the symplectic adjoint method in division-free form.

With lam = dL/dy+ and mu_m = dL/dy(sigma_m), stages from the last to the first:

    w_i = h (b_i lam + sum_m b_i(sigma_m) mu_m + sum_{j>=i} a_ji l_j)
    l_i, tau_i, theta_i = w_i^T (df/dy, df/dt, df/dtheta)(t_i, Y_i)
    y_bar = lam + sum_m mu_m + sum_i l_i,   theta_bar = sum_i theta_i

Matsubara, Miyatake and Yaguchi (NeurIPS 2021, arXiv:2102.09750): with Lambda_i = w_i / (h b_i) this is their
method, the Runge-Kutta method on the adjoint equation that conserves lam^T delta. Without the division,
b_i = 0 is no special case. Where a_ii is not zero, l_i = (df/dy)^T w_i makes this an equation for w_i. Where stages are
coupled the sum is over all j, and this is one system of equations for all w_i (steps/coupled.py). The cotangents of
times use k_i, the value of f from the same call:

    sigma_bar_m = h mu_m . sum_i b_i'(sigma_m) k_i,            t_out_bar_m = sigma_bar_m / h
    t_bar = sum_i tau_i - sum_m sigma_bar_m / h
    h_bar = sum_i k_i . w_i / h + sum_i c_i tau_i - sum_m sigma_m sigma_bar_m / h

where sum_i k_i . w_i / h groups by k_i the terms that docs/derivation.md groups by cotangent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from symplectic_adjoint.field.captured import CapturedSteps
from symplectic_adjoint.field.compiled import CompiledSteps
from symplectic_adjoint.field.few_launches import is_small
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.grad_mode import without_graph
from symplectic_adjoint.field.linearization import Linearization, Pull
from symplectic_adjoint.field.parameter_aliases import ParameterAliases
from symplectic_adjoint.field.program_buffers import ProgramBuffers
from symplectic_adjoint.field.step_programs import Transposition
from symplectic_adjoint.field.times import number
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.steps.cotangent_sums import SumsInTurn, SumsTogether
from symplectic_adjoint.steps.coupled import CoupledStep
from symplectic_adjoint.steps.output_cotangents import NO_OUTPUTS, OutputCotangents, weighted_cotangents
from symplectic_adjoint.steps.runge_kutta import Step


@dataclass
class StepCotangents:
    """Cotangents of the inputs of a step; those of its times only if they were requested."""

    y_terms: list[Tensor]
    """The terms of y_bar - lam."""
    t_bar: Tensor | float = 0.0
    h_bar: Tensor | float = 0.0
    output_bars: dict[int, Tensor | float] = field(default_factory=dict)


class StageValues(Protocol):
    """Compares the values of a step's stages, as they are evaluated again, with those of the forward pass."""

    def wants(self, i: int) -> bool:
        """Return whether the value of row i is needed."""
        ...

    def see(self, step: Step, i: int, k: Tensor, known: Tensor | None, later: Sequence[Tensor], /) -> None:
        """Compare the value k of row i; known is the one that the step held, later the stages after it."""
        ...

    def see_program(self, buffers: ProgramBuffers, /) -> None:
        """Compare what a captured program evaluated again: the end of the step, and the known stages."""
        ...


def rows_of(tableau: ButcherTableau, outputs: OutputCotangents) -> int:
    """Return how many rows of the extended tableau a step with these outputs uses."""
    return max(tableau.stages, tableau.interpolant.rows) if outputs else tableau.stages


def transpose_step(
    f: Field,
    step: Step,
    lam: Tensor,
    outputs: OutputCotangents,
    pull: Pull,
    *,
    with_time: bool,
    graphs: list[Linearization | None] | None = None,
    values: StageValues | None = None,
    one_term: bool = True,
) -> StepCotangents:
    """Pull lam and the cotangents of the outputs back through a step whose states have no graph.

    Only one f is on the graph at a time, except for graphs that were kept: `graphs` has one entry per row. The step
    must hold what the states of the other rows are computed from: k_1 .. k_{s-1} if there are no graphs, and its end if
    a dense output needs f there. Step and graphs are consumed: each k_i is freed once no earlier state needs it.
    values: compares what is evaluated here with the forward pass. one_term: whether y_bar - lam may be summed here.
    """
    tableau, h = step.tableau, step.h
    assert isinstance(h, float)  # times are numbers here: their cotangents come from the formulas above
    if f.captured is not None:
        return _transpose_captured(f, f.captured, step, lam, outputs, values, with_time=with_time)
    rows = rows_of(tableau, outputs)
    if rows > tableau.stages + 1 and (graphs is None or graphs[-1] is None):
        with without_graph():
            step.evaluate(rows - 1)  # the stages that only the interpolant needs
    if graphs is None and not outputs and isinstance(code := f.code, CompiledSteps) and f.aliases is not None:
        return _transpose_compiled(f, f.aliases, code, step, lam, values, with_time=with_time)
    stages = _Stages(f, step, graphs, values, with_time=with_time)
    times = _TimeSums(step, h, outputs) if with_time else None
    weighted = weighted_cotangents(tableau.interpolant, outputs, together=one_term and lam.dtype == step.y.dtype)
    if one_term and is_small(lam) and lam.dtype == step.y.dtype:
        sums = SumsTogether(tableau, h, lam, weighted, f.fills)
    else:
        sums = SumsInTurn(tableau, h, lam, weighted)

    def taken(i: int) -> Tensor:
        w = sums.take(i)
        if w is None:
            return torch.zeros_like(step.y)
        return w if w.dtype == step.y.dtype else w.to(step.y.dtype)  # lam may be carried in a higher precision

    together = None
    if isinstance(step, CoupledStep):
        together = step.solve_transposed([taken(i) for i in range(rows)], graphs)
    for i in reversed(range(rows)):
        used = together is not None or sums.has_terms(i) or (times is not None and times.uses(i))
        linearization = stages.take(i, used=used)
        if linearization is None:
            continue
        w = taken(i) if together is None else together.pop()
        if together is None and (g := tableau.floats.diagonal[i]) != 0.0:
            assert f.stage_solver is not None
            w = f.stage_solver.solve_transposed(linearization, step.time(i), h * g, w)
        l_i, *t_bar = f.transpose(linearization, w, pull)
        sums.add(i, l_i)
        if times is not None:
            times.add(i, linearization.k, t_bar[0], w)
        del linearization
    y_terms = sums.y_terms()
    return StepCotangents(y_terms) if times is None else times.cotangents(y_terms)


class _Stages:
    """f at the stages of a step, from the last to the first, on graphs that were kept or are made when needed."""

    def __init__(
        self,
        f: Field,
        step: Step,
        graphs: list[Linearization | None] | None,
        values: StageValues | None,
        *,
        with_time: bool,
    ):
        self._f, self._step, self._graphs, self._with_time = f, step, graphs, with_time
        self._values = None if graphs and None not in graphs else values
        self._later: list[Tensor] = []
        """The stages from the one whose graph was kept last."""

    def take(self, i: int, *, used: bool) -> Linearization | None:
        """Return the graph of stage i, None if it is not used. The step then holds only the stages before it."""
        step, values, with_time = self._step, self._values, self._with_time
        kept = self._graphs.pop() if self._graphs else None
        if not used:
            return None
        if kept is not None:
            if values is not None and kept.k is not None and i < step.tableau.stages:
                self._later.insert(0, kept.k)
            del step.ks[i:]
            return kept
        compared = values is not None and values.wants(i)
        known = step.ks[i] if compared and i < len(step.ks) else None
        state = step.pop(i)
        with step.evaluating(i):
            made = self._f.linearize(step.time(i), state, with_time=with_time, with_value=with_time or compared)
        if compared and values is not None and made.k is not None:
            values.see(step, i, made.k, known, self._later)
            self._later.clear()
            made.k = made.k if with_time else None
        return made


def _transpose_compiled(
    f: Field,
    aliases: ParameterAliases,
    code: CompiledSteps,
    step: Step,
    lam: Tensor,
    values: StageValues | None,
    *,
    with_time: bool,
) -> StepCotangents:
    """Transpose a step without outputs, each stage in one call of compiled code."""
    s = step.tableau.stages
    assert isinstance(step.h, float)
    times = _TimeSums(step, step.h, NO_OUTPUTS) if with_time else None
    l: list[Tensor | None] = [None] * s  # noqa: E741 (the paper's name)
    theta_bar = aliases.totals
    scalars = code.stage_scalars(step.h, [number(step.time(i)) for i in range(s)])
    for i in reversed(range(s)):
        compared = values is not None and values.wants(i)
        known = step.ks[i] if compared and i < len(step.ks) else None
        del step.ks[i:]
        f.f_calls += 1
        f.vjps += 1
        used, l[i], k, *of_times = code.stage_vjp(
            scalars[i], step.y, step.ks, lam, l, aliases.trainable, theta_bar, with_time=with_time
        )
        aliases.mark_added(used)
        if compared and values is not None:
            values.see(step, i, k, known, ())
        if times is not None:
            tau, w = of_times
            times.add(i, k, tau, w)
    y_terms = [x for x in l if x is not None]
    return StepCotangents(y_terms) if times is None else times.cotangents(y_terms)


def _transpose_captured(
    f: Field,
    captured: CapturedSteps,
    step: Step,
    lam: Tensor,
    outputs: OutputCotangents,
    values: StageValues | None,
    *,
    with_time: bool,
) -> StepCotangents:
    """Transpose a step in one run of a captured program."""
    h, s, interpolant = number(step.h), step.tableau.stages, step.tableau.interpolant
    updates = captured.holds(lam)
    kind = Transposition(min(len(step.ks), s), rows_of(step.tableau, outputs), bool(outputs), with_time, updates)
    times = [number(step.time(i)) for i in range(kind.rows)]
    mus = [(interpolant.weights_at(o.sigma), o.mu) for o in outputs]
    b, calls, vjps = captured.transpose(f, h, times, step.y, step.ks, lam, kind, mus)
    f.f_calls += calls
    f.vjps += vjps
    if values is not None:
        values.see_program(b)
    y_terms = [o.mu for o in outputs]
    if not updates:
        y_terms.append(b.view(b.increment))
    if not with_time:
        return StepCotangents(y_terms)
    sums = _TimeSums(step, h, outputs)
    sums.set(*b.time_sums.clone().unbind())
    for m, o in enumerate(outputs):
        slopes = interpolant.slopes_at(o.sigma)[: kind.rows]
        sums.add_output(m, inner(b.flat(o.mu), b.combined_values(slopes)))
    return sums.cotangents(y_terms)


class _TimeSums:
    """The sums over stages that make up the cotangents of times, in float64."""

    def __init__(self, step: Step, h: float, outputs: OutputCotangents):
        self._h = h
        c = step.tableau.floats.c
        self._c = [min(x, 1.0) for x in c] if step.open_ends[1] else c  # as in Step.time
        self._outputs = outputs
        self._slopes = [step.tableau.interpolant.slopes_at(o.sigma) for o in outputs]
        self._tau: Tensor | float = 0.0
        self._c_tau: Tensor | float = 0.0
        self._k_w: Tensor | float = 0.0
        self._sigma_bars: list[Tensor | float] = [0.0] * len(outputs)

    def uses(self, i: int) -> bool:
        """Return whether k_i is needed even if w_i is zero."""
        return any(slope[i] != 0.0 for slope in self._slopes)

    def add(self, i: int, k: Tensor | None, t_bar: Tensor | None, w: Tensor) -> None:
        """Add the terms of stage i, where t_bar is tau_i."""
        assert k is not None
        if t_bar is not None:
            tau = t_bar.double()
            self._tau = self._tau + tau
            self._c_tau = self._c_tau + self._c[i] * tau
        self._k_w = self._k_w + inner(k, w)
        for m, (output, slope) in enumerate(zip(self._outputs, self._slopes, strict=True)):
            if slope[i] != 0.0:
                self.add_output(m, slope[i] * inner(output.mu, k))

    def set(self, tau: Tensor, c_tau: Tensor, k_w: Tensor) -> None:
        """Set the sums of all stages."""
        self._tau, self._c_tau, self._k_w = tau, c_tau, k_w

    def add_output(self, m: int, slope: Tensor) -> None:
        """Add to the m-th output mu_m . sum_i b_i'(sigma_m) k_i."""
        self._sigma_bars[m] = self._sigma_bars[m] + self._h * slope

    def cotangents(self, y_terms: list[Tensor]) -> StepCotangents:
        h, bars = self._h, self._sigma_bars
        return StepCotangents(
            y_terms,
            t_bar=self._tau - sum(bars) / h,
            h_bar=self._k_w / h
            + self._c_tau
            - sum(o.sigma * bar for o, bar in zip(self._outputs, bars, strict=True)) / h,
            output_bars={o.j: bar / h for o, bar in zip(self._outputs, bars, strict=True)},
        )


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return Re sum conj(a) b in float64: the derivative of a real loss along a, where b is the cotangent."""
    if a.is_complex():
        return inner(torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj()))
    return (a.double() * b.double()).sum()
