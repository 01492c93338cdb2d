"""The values that a backward pass recomputes, compared with those that the forward pass had.

The differences are measured on the device, and the host reads them once, at the end. A difference is suspicious if it
exceeds a bound that takes few operations and is at most the one that recomputed_verdict.py then applies.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from symplectic_adjoint.backward.recomputed_verdict import (
    END,
    STATE_ULPS,
    WHOLE,
    Difference,
    end_error,
    eps_of,
    judge,
    stage_error,
)
from symplectic_adjoint.backward.state_sketch import Marks, StateSketch
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.host_reads import can_read
from symplectic_adjoint.field.precision import value_bound
from symplectic_adjoint.field.program_buffers import ProgramBuffers
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.solve.trajectory import Trajectory
from symplectic_adjoint.steps.runge_kutta import Step

ROWS = 95
"""The number of differences that are held before all but the largest are dropped."""

FLAG = ROWS + 1

STEPS_OF_A_SCALE = 8
"""In how many steps |y| and |k| are measured once. They vary slowly, and only set how much rounding error is usual."""

norm = torch.linalg.vector_norm


def can_compare(y: Tensor) -> bool:
    """Return whether values of states like y can be compared: there are some, and the host may read them."""
    return y.numel() > 0 and can_read(y)


class _Row(NamedTuple):
    """A difference in stage `stage` of step n, or in its end.

    Its bound is value_factor |value of the forward pass| + extra_factor |extra|, with the norms in row `scales`.
    spread: what one entry's difference is multiplied by, in a sketch.
    """

    n: int
    stage: int
    value_factor: float
    extra_factor: float
    scales: int
    spread: float


class RecomputedValues:
    """The differences of one backward pass. `settle` raises FunctionChanged if one of them shows that func changed.

    marks: those of the forward pass.
    """

    def __init__(self, problem: Problem, trajectory: Trajectory, f: Field, y0: Tensor, marks: Marks):
        self._problem, self._plans, self._f, self._y0, self._marks = problem, trajectory.plans, f, y0, marks
        self._y_factor = STATE_ULPS * torch.finfo(f.dtype).eps + end_error(f)
        if f.compiled is not None:  # compiled code rounds every sum in its own way
            self._y_factor *= 1 + problem.tableau.stages
        self._on_cpu = f.device.type == "cpu"
        self._cells: list[tuple[Tensor, ...]] = []
        """The entries of the first rows, made where they are written one by one."""
        self._rows: list[_Row] = []
        self._scales: tuple[int, int] | None = None
        """The row with the latest |y| and |k|, and its step."""

    @cached_property
    def _k_factor(self) -> float:
        return value_bound(eps_of(self._problem, self._f))

    @cached_property
    def _numbers(self) -> Tensor:
        """In each row |difference|, |value| and |extra|, in the maximum norm.

        In row ROWS the largest excess so far: factor by which it exceeds its bound, size, n, stage. In row FLAG what is
        read besides.
        """
        return torch.zeros(FLAG + 1, 4, dtype=self._f.dtype.to_real(), device=self._f.device)

    def of_step(
        self, n: int, *, kept: int = 0, end: Tensor | None = None, end_slope: Tensor | None = None
    ) -> "StepValues":
        """Return the comparison of step n, whose first `kept` stages are those of the forward pass.

        end: the state at its end; None if it is the last step. end_slope: f there, if it was kept.
        """
        self._make_room()
        return StepValues(self, n, kept, end, end_slope)

    def compare_end(self, n: int, found: Tensor, end: Tensor | None, k: Tensor) -> None:
        """Compare the end of step n, which is overwritten, with the state there (None: the last state).

        k: the last stage of the step.
        """
        h_b = abs(self._plans[n].h * self._problem.tableau.floats.b[-1])
        if end is None:
            self._compare_last(n, END, found, k, h_b)
        elif not self._surely_equal(found, end):
            self._add_with_scales(n, END, found.sub_(end), end, k, self._y_factor, self._k_factor * h_b)

    def compare_solve(self, found: Tensor, k: Tensor) -> None:
        """Compare the last state of the repeated solve; k is the last stage of its last step."""
        self._make_room()
        duration = sum(abs(plan.h) for plan in self._plans)
        self._compare_last(len(self._plans) - 1, WHOLE, found, k, duration)

    def compare_value(self, n: int, i: int, found: Tensor, k: Tensor, y: Tensor) -> None:
        """Compare the value of stage i of step n with k, that of the forward pass. y: the start of the step."""
        if not self._surely_equal(found, k):
            y_factor = stage_error(self._f, self._plans[n].h * self._problem.tableau.floats.diagonal[i])
            self._add_with_scales(n, i, torch.sub(found, k), y, k, y_factor, self._k_factor)

    def compare_end_slope(self, n: int, found: Tensor, k: Tensor | None, y: Tensor) -> None:
        """Compare f at the end of step n with k, that of the forward pass, or with its mark. y: the step's start."""
        if k is None:
            self.compare_last_value(self.stages, found)
        else:
            self.compare_value(n, self.stages, found, k, y)

    def marks_slope_of(self, n: int) -> bool:
        """Return whether the forward pass marked f at the end of step n, the last."""
        return n == len(self._plans) - 1 and self.has_last_value

    @property
    def stages(self) -> int:
        """The number of stages of a step."""
        return self._problem.tableau.stages

    def add_stages(self, n: int, differences: Tensor) -> None:
        """Add the differences of the first stages of step n, each with the norms that set its bound."""
        at = len(self._rows)
        self._add_measured([_Row(n, i, 0.0, self._k_factor, at + i, 1.0) for i in range(len(differences))], differences)

    def add_end(self, n: int, found: Tensor, k_size: Tensor, measured: Tensor | None) -> None:
        """Add the difference at the end of step n, with the norms that set its bound.

        measured: these numbers; None in the last step, the end of which is found, where its last stage has size k_size.
        """
        h_b = abs(self._plans[n].h * self._problem.tableau.floats.b[-1])
        if measured is None:
            self._compare_last(n, END, found, k_size, h_b)
        else:
            row = _Row(n, END, self._y_factor, self._k_factor * h_b, len(self._rows), 1.0)
            self._add_measured([row], measured)

    def _add_measured(self, rows: Sequence[_Row], numbers: Tensor) -> None:
        """Add rows with the numbers that belong to them."""
        at = len(self._rows)
        self._numbers[at : at + len(rows), :3] = numbers
        self._rows += rows

    def _surely_equal(self, a: Tensor, b: Tensor) -> bool:
        """Return whether two tensors are known to be equal, without a wait: on the CPU the usual case, and quick."""
        return self._on_cpu and torch.equal(a, b)

    @property
    def has_last_value(self) -> bool:
        """Whether the forward pass marked the value of a call at its end."""
        return self._marks.last_value is not None

    def compare_first_value(self, found: Tensor) -> None:
        """Compare f at the start of the first step with the mark of it."""
        self._compare_mark(0, 0, found, self._marks.first_value, None)

    def compare_last_value(self, i: int, found: Tensor, y: Tensor | None = None) -> None:
        """Compare f at stage i of the last step with the mark of it.

        y: the state at which f was called, if it was restored only up to rounding errors, which f may amplify.
        """
        self._compare_mark(len(self._plans) - 1, i, found, self._marks.last_value, y)

    def _compare_mark(self, n: int, i: int, found: Tensor, kept: StateSketch | None, y: Tensor | None) -> None:
        if kept is None:
            return
        self._make_room()
        again, spread = StateSketch(found), kept.spread
        if self._surely_equal(again.numbers, kept.numbers):
            return
        difference = again.minus(kept)
        # A step is too large for the method long before h |df/dy| is 16.
        amplified = 0.0 if y is None else 16.0 * self._y_factor * spread / abs(self._plans[n].h)
        self._add(n, i, difference, kept.numbers, y, self._k_factor, amplified, spread=spread)

    def settle(self, flag: Tensor | None = None) -> bool:
        """Read the differences; raise FunctionChanged, or give NoiseWarning, for one that is no rounding error.

        Return whether flag is true, a tensor with one entry that is read with them.
        """
        if "_numbers" not in vars(self):  # no difference was added
            return flag is not None and bool(flag)
        if flag is not None:
            self._numbers[FLAG, 0].copy_(flag)
        numbers, rows = self._numbers.tolist(), self._rows
        score, size, n, stage = numbers[ROWS]
        for row, (difference, *_) in zip(rows, numbers, strict=False):
            _, value, extra, _ = numbers[row.scales]
            bound = row.value_factor * value + row.extra_factor * extra
            if math.isfinite(value) and not difference <= bound:
                excess = difference / bound if bound > 0.0 and math.isfinite(difference) else math.inf
                if excess > score:
                    score, size, n, stage = excess, difference / row.spread, row.n, row.stage
        self._clear()
        self._numbers[ROWS].zero_()
        if score > 0.0:
            at_end = n == len(self._plans) - 1 and stage >= 0
            found = Difference(int(n), int(stage), size, self._marks.last_value if at_end else None)
            judge(self._problem, self._plans, self._f, self._y0, found)
        return flag is not None and numbers[FLAG][0] != 0.0

    def _compare_last(self, n: int, stage: int, found: Tensor, k: Tensor, duration: float) -> None:
        end, again = self._marks.end, StateSketch(found)
        if self._surely_equal(again.numbers, end.numbers):
            return
        difference, k_factor = again.minus(end), self._k_factor * duration
        self._add(n, stage, difference, end.numbers, k, self._y_factor, k_factor, spread=end.spread)

    def _add_with_scales(
        self,
        n: int,
        stage: int,
        difference: Tensor,
        value: Tensor,
        k: Tensor,
        value_factor: float,
        k_factor: float,
    ) -> None:
        """Add a difference whose bound depends on the norms of value and k here, or in a step close by."""
        if self._scales is not None and abs(self._scales[1] - n) < STEPS_OF_A_SCALE:
            self._add(n, stage, difference, None, None, value_factor, k_factor, scales=self._scales[0])
        else:
            self._scales = len(self._rows), n
            self._add(n, stage, difference, value, k, value_factor, k_factor)

    def _add(
        self,
        n: int,
        stage: int,
        difference: Tensor,
        value: Tensor | None,
        extra: Tensor | None,
        value_factor: float,
        extra_factor: float,
        *,
        scales: int = -1,
        spread: float = 1.0,
    ) -> None:
        at = len(self._rows)
        while at >= len(self._cells):
            self._cells.append(self._numbers[len(self._cells)].unbind())
        cells = self._cells[at]
        norm(difference, math.inf, out=cells[0])
        if value is not None:
            norm(value, math.inf, out=cells[1])
        if extra is not None:
            norm(extra, math.inf, out=cells[2])
        self._rows.append(_Row(n, stage, value_factor, extra_factor, at if scales < 0 else scales, spread))

    def _clear(self) -> None:
        self._numbers[:ROWS].zero_()
        self._rows, self._scales = [], None

    def _make_room(self) -> None:
        """Drop all rows but the largest excess if those of another step might not fit. Without reading anything."""
        if len(self._rows) + self._problem.tableau.stages + 1 > ROWS:
            self._compress()

    def _compress(self) -> None:
        rows, numbers = self._rows, self._numbers[: len(self._rows)]
        columns = [[x.scales, x.value_factor, x.extra_factor, x.spread, x.n, x.stage] for x in rows]
        table = _to_device(columns, numbers).unbind(1)
        scales = numbers[table[0].long()]
        bound = table[1] * scales[:, 1] + table[2] * scales[:, 2]
        difference = numbers[:, 0]
        excess = torch.nan_to_num(difference / bound, nan=math.inf, posinf=math.inf)
        suspicious = scales[:, 1].isfinite() & ~(difference <= bound)
        found = torch.stack([torch.where(suspicious, excess, 0.0), difference / table[3], table[4], table[5]], 1)
        found = torch.cat([self._numbers[ROWS:FLAG], found])
        self._numbers[ROWS] = found.index_select(0, found[:, 0].argmax().reshape(1))[0]
        self._clear()


def _to_device(columns: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return a matrix of these numbers, without making the host wait for the device."""
    host = torch.tensor(columns, dtype=like.dtype, device="cpu", pin_memory=like.device.type == "cuda")
    return host.to(like.device, non_blocking=True)


class StepValues:
    """The comparison of one step, whose stages are evaluated again from the last to the first.

    The value of a stage that the forward pass kept is compared with what was kept. The first value of one that it did
    not keep completes the stages of the step, and its end is compared.
    """

    __slots__ = ("_end", "_end_slope", "_ended", "_kept", "_n", "_values")

    def __init__(
        self, values: RecomputedValues, n: int, kept: int, end: Tensor | None, end_slope: Tensor | None = None
    ):
        self._values, self._n, self._kept, self._end, self._end_slope = values, n, kept, end, end_slope
        self._ended = False

    def wants(self, i: int) -> bool:
        """Return whether the value of row i is needed: of a stage, or of f at the end of the step, if it is known."""
        if i >= self._values.stages:
            return i == self._values.stages and (self._end_slope is not None or self._values.marks_slope_of(self._n))
        return i < self._kept or not self._ended

    def see(self, step: Step, i: int, k: Tensor, known: Tensor | None, later: Sequence[Tensor]) -> None:
        """Compare the value k of stage i of a step that holds the stages before it.

        known: the same stage as the step held it. later: the stages after it, if their graphs were kept.
        """
        if i == self._values.stages:
            self._values.compare_end_slope(self._n, k, self._end_slope, step.y)
        elif i < self._kept:
            assert known is not None
            self._values.compare_value(self._n, i, k, known, step.y)
        else:
            if known is not None and step.tableau.floats.diagonal[i] != 0.0:  # solved for with f as it is now
                k = known
            self._compare_end(step, (*step.ks, k, *later))

    def see_program(self, buffers: ProgramBuffers) -> None:
        """Compare what a captured program evaluated again."""
        if self._kept:
            self._values.add_stages(self._n, buffers.differences[: self._kept])
        if self._kept < self._values.stages:
            measured = None if self._end is None else buffers.end_differences
            self._ended, self._end = True, None
            self._values.add_end(self._n, buffers.end_state, buffers.k_size, measured)

    def see_end(self, step: Step) -> None:
        """Compare the end of a step whose stages have all been evaluated again."""
        self._compare_end(step, step.ks[: step.tableau.stages])

    def _compare_end(self, step: Step, ks: Sequence[Tensor]) -> None:
        self._ended, end, self._end = True, self._end, None
        self._values.compare_end(self._n, step.end_of(ks), end, ks[-1])


class EndOfSolve(KeepNothing):
    """Compares the last state of a solve that is repeated."""

    def __init__(self, values: RecomputedValues):
        self._values = values

    @torch.no_grad()
    def finish(self, step: Step) -> None:
        self._values.compare_solve(step.end().detach(), step.ks[step.tableau.stages - 1].detach())
