"""The time loop. It knows nothing about gradients: a recorder decides what to keep of each step."""

from typing import Protocol

from torch import Tensor

from symplectic_adjoint.errors import SolverError, StageNotSolved
from symplectic_adjoint.field.field import Field
from symplectic_adjoint.field.times import number
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.grid import StepPlan
from symplectic_adjoint.solve.outputs import Outputs
from symplectic_adjoint.solve.step_sequences import StepSequence
from symplectic_adjoint.solve.timeline import Timeline
from symplectic_adjoint.steps.kind import MakeStep
from symplectic_adjoint.steps.runge_kutta import RightHandSide, Step


class Recorder(Protocol):
    """The recorder of a forward pass, which keeps what a gradient needs of it."""

    def wrap(self, f: Field) -> RightHandSide:
        """Return the function that steps call in place of f."""
        ...

    def accept(self, plan: StepPlan, step: Step) -> None:
        """Record an accepted step. Its tensors may be kept: they are not changed afterwards."""
        ...

    def finish(self, step: Step) -> None:
        """Record that this accepted step was the last one."""
        ...


class KeepNothing:
    """The recorder that keeps nothing."""

    def wrap(self, f: Field) -> RightHandSide:
        return f

    def accept(self, plan: StepPlan, step: Step) -> None:
        del plan, step

    def finish(self, step: Step) -> None:
        del step


def integrate(
    f: RightHandSide,
    tableau: ButcherTableau,
    sequence: StepSequence,
    y0: Tensor,
    outputs: Outputs,
    recorder: Recorder,
    timeline: Timeline,
    make_step: MakeStep = Step,
    plans: list[StepPlan] | None = None,
) -> Tensor:
    """Take every step that the sequence proposes and return the last state.

    plans: a list to which the accepted steps are added, so that those before a failure are known. Raises SolverError,
    which says how far the solve got.
    """
    plans = [] if plans is None else plans
    plan = step = companion = None
    y, accepted = y0, False
    try:
        k1 = sequence.start(f, timeline.start, y0)
        while (plan := sequence.propose()) is not None:
            if accepted and step is not None:
                k1, companion = step.end_slope(), step.end_companion()
            t, h, t_end = timeline.of(plan)
            ends = (plan.open_start, plan.open_end)
            known = (k1,) if k1 is not None and tableau.starts_with_slope else ()
            f.times.expect(plan, tableau.floats.c)
            step = make_step(f, tableau, t, h, t_end, y, known, open_ends=ends, companion=companion)
            accepted = sequence.accepts(plan, step)
            if not accepted:
                k1 = step.ks[0] if step.ks else k1  # a retry has the same first stage
                continue
            outputs.collect(len(plans), plan, step, timeline)
            y = step.end()
            recorder.accept(plan, step)
            timeline.advance(plan)
            plans.append(plan)
            if plan.open_end:
                step.end_companion()  # before f changes to the one beyond the jump
                f.restart()
    except SolverError as error:
        can_tell = error.place is None and not isinstance(error, StageNotSolved)  # whose step cannot be evaluated
        if can_tell and step is not None and (index := sequence.worst_component(step)) is not None:
            error.place = f.place(index)
        error.t = number(timeline.start)
        error.step_size = None if step is None else number(step.h)
        error.accepted, error.rejected, error.f_calls = len(plans), sequence.rejected, f.f_calls
        error.state = y.detach()
        raise
    if step is not None:
        recorder.finish(step)
    return y
