"""A solve as a single node of the caller's autograd graph: the library's only torch.autograd.Function for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import untraced
from symplectic_adjoint.backward.captured_passes import run_captured, settled, with_programs, without_programs
from symplectic_adjoint.backward.float16_passes import Overflows, within_float16
from symplectic_adjoint.backward.held_graphs import StageGraph
from symplectic_adjoint.backward.recomputed_values import RecomputedValues, can_compare
from symplectic_adjoint.backward.recomputed_verdict import eps_of
from symplectic_adjoint.backward.state_sketch import Marks
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.backward.users_capture import require_capturable_gradient
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.first_graph import FirstGraph
from symplectic_adjoint.field.gate import Gate
from symplectic_adjoint.field.inner_checkpoints import refusing_reentrant_checkpoints
from symplectic_adjoint.field.kept_values import refuse_kept_later
from symplectic_adjoint.field.lost_gradients import GradientNeeded
from symplectic_adjoint.field.precision import TF32_EPS
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.repeated_outputs import repeat_outputs
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.solve.trajectory import Trajectory


@refusing_reentrant_checkpoints()
def run(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory]:
    """Solve the problem at every entry of t; the caller's backward pass through ys then uses `strategy`.

    The trajectory is that of the distinct times. Raises UnsupportedCombination as _run_distinct does, and for a func
    that cannot be transposed, and NotCapturable with capture=True.
    """
    if not problem.capture:
        return _run(problem, strategy, y0, t)
    return run_captured(problem, lambda problem: _run(problem, strategy, y0, t))


def _run(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory]:
    """Solve the problem as `run` does, with the programs that it allows, if any."""
    if problem.repeated is None:
        return _run_distinct(problem, strategy, y0, t)
    ys, trajectory = _run_distinct(problem, strategy, y0, problem.repeated.distinct(t))
    return repeat_outputs(problem, problem.repeated, trajectory, ys, t), trajectory


def _run_distinct(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory]:
    """Solve the problem at the distinct times t; the caller's backward pass through ys then uses `strategy`.

    Nothing is kept if no gradient can be requested. Under torch.func transforms and forward mode, which cannot go
    through a strategy, the operations of the solve themselves are differentiated: for an exact gradient the result is
    the same. Raises UnsupportedCombination if the gradient is not exact there.
    """
    try:
        return _run_once(problem, strategy, y0, t)
    except GradientNeeded as needed:
        calls = needed.f_calls
    return _run_once(replace(problem, calls_before=calls), strategy, y0, t, differentiates=True)


def _run_once(
    problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor, *, differentiates: bool = False
) -> tuple[Tensor, Trajectory]:
    """Solve the problem as _run_distinct does; raise GradientNeeded if func shows so, unless it is known."""
    grad_mode, wants_t = torch.is_grad_enabled(), t.requires_grad
    if transforming():
        if not strategy.exact:
            raise UnsupportedCombination(f"torch.func and forward mode need an exact gradient, got {strategy}")
        return problem.solve(y0, KeepNothing(), on_graph=True, t=t)
    through_state = wants_t or y0.requires_grad
    differentiates = differentiates or (grad_mode and (through_state or problem.may_need_gradient))
    choice = None
    if differentiates:
        strategy, choice = strategy.resolved(ForwardPass(problem, y0.detach(), wants_t))
    if grad_mode and strategy.on_callers_graph:  # autograd also reaches tensors that only func knows
        y0 = y0.view_as(y0)  # func is passed no leaf, for which the hooks of FlopCounterMode lack a node
        ys, trajectory = problem.solve(y0, KeepNothing(), on_graph=True, t=t if wants_t else None)
        if ys.requires_grad:
            ys.register_hook(_vjp_counter(trajectory, problem.tableau))
        trajectory.stats.choice = choice
        return ys, trajectory
    if not differentiates or strategy.on_callers_graph:
        with torch.no_grad():
            return problem.solve(y0.detach(), KeepNothing(), watch=grad_mode, through_state=False)
    call = _forward_pass(problem, strategy, y0.detach(), wants_t, through_state)
    f = call.trajectory.field
    params = () if f.off_graph.graphless else f.params
    if not (through_state or (params and f.search.wants_gradient)):  # func uses none of the tensors it could reach
        return call.results[0], call.trajectory
    f.handed_out.refuse((y0, t, *params))
    return _Solve.apply(call, y0, t, *params), call.trajectory


def _vjp_counter(trajectory: Trajectory, tableau: ButcherTableau) -> Callable[[Tensor], None]:
    """Return a hook that counts the VJPs of autograd's own backward pass: one per f call of the accepted steps."""
    stats, vjps = trajectory.stats, trajectory.f_calls_on_graph(tableau)

    @untraced
    def count(grad: Tensor) -> None:
        del grad
        stats.vjps_backward += vjps

    return count


@dataclass
class _Call:
    """One forward pass, as its backward pass needs it.

    problem: up to the event, if there was one. results: ys and the tensors kept, until they are saved for the backward
    pass. guarded: how many tensors were saved only to detect changes in place.
    """

    problem: Problem
    strategy: Strategy
    trajectory: Trajectory
    results: Sequence[Tensor]
    steps: Sequence[int]
    last_stages: list[Tensor]
    graphs: list[StageGraph]
    marks: Marks | None
    guarded: int = 0


@torch.no_grad()
def _forward_pass(problem: Problem, strategy: Strategy, y0: Tensor, with_time: bool, through_state: bool) -> _Call:
    """Solve, and return what the backward pass needs. through_state: whether a gradient of y0 or t is wanted.

    The parameters are complete only now: tensors that no module holds are found in the graph of func's first call.
    """
    keeper = strategy.keeper(ForwardPass(problem, y0, with_time))
    ys, trajectory = problem.solve(y0, keeper, adopt=True, through_state=through_state)
    f = trajectory.field
    if not f.off_graph.graphless:
        f.require_repeatable()
    f.forward_state.guard(f.params, f.search.reached)
    trajectory.stats.f_calls_forward = f.f_calls
    trajectory.stats.choice = keeper.choice
    problem = problem.up_to_event(trajectory)
    results, last_stages, graphs = [ys, *keeper.kept], list(keeper.last_stages), list(keeper.graphs)
    return _Call(problem, strategy, trajectory, results, keeper.steps, last_stages, graphs, keeper.marks)


SAMPLES = 16
"""The number of steps at whose ends a solve is searched for values that func kept, if a parameter got no gradient."""


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, y0: Tensor, t: Tensor, *params: Tensor) -> Tensor:
        del params  # inputs for autograd only; func reads its own
        ys, *kept = call.results
        guarded = call.trajectory.field.forward_state.guarded.saved
        outputs = (ys,) if call.strategy.uses_outputs else ()
        # Everything is saved with save_for_backward, so that a change in place before the backward pass raises.
        ctx.save_for_backward(y0, t, *guarded, *outputs, *kept)
        call.guarded, call.results = len(guarded), ()
        ctx.call = call
        return ys

    @staticmethod
    @untraced
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_ys,) = grad_outputs
        call: _Call = ctx.call
        y0, t, *kept = ctx.saved_tensors
        del kept[: call.guarded]  # func reads these itself; they were saved to detect changes in place
        # Unless the graph is retained, nothing else refers to the kept tensors from here on, and each is freed after
        # its use. For double backward they remain alive as inputs of the new graph.
        ctx.maybe_clear_saved_tensors()
        ys = kept.pop(0) if call.strategy.uses_outputs else None
        trajectory = call.trajectory
        if call.strategy.check:
            trajectory.field.forward_state.require_unchanged()
        f = trajectory.field.for_another_pass()
        f.search.sample(len(trajectory.plans) * call.problem.tableau.stages, call.problem.tableau.stages)
        f.times = f.times.for_steps(trajectory.plans if call.strategy.exact else (), call.problem.tableau.floats.c)
        if not call.strategy.check:
            f.first_graph = FirstGraph()
        t = t if ctx.needs_input_grad[2] else None
        require_capturable_gradient(call.strategy, y0, t)
        values = None
        if call.strategy.check and call.marks is not None and can_compare(y0):
            values = RecomputedValues(call.problem, trajectory, f, y0.detach(), call.marks)
        given = BackwardPass(
            call.problem, trajectory, f, y0, t, kept, call.steps, call.last_stages, call.graphs, ys, grad_ys, values
        )
        create_graph = torch.is_grad_enabled()

        def compute(given: BackwardPass, overflows: Overflows | None = None) -> tuple[Gradients, bool]:
            if create_graph:
                without_programs(given, "double backward")
                gradients = _differentiable(given, call.strategy)
                _require_reversible(given, call.strategy)
                return gradients, overflows is not None and bool(overflows(gradients))
            with f.forward_state.reinstated():
                gradients = with_programs(given, call.strategy.backward)
                return gradients, settled(given, None if overflows is None else overflows(gradients))

        with refusing_reentrant_checkpoints():
            gradients = within_float16(given, compute) if f.computes_in_float16 else compute(given)[0]
        seen = not (f.compiled or f.captured)  # every graph was searched
        if call.strategy.exact and f.vjps >= len(trajectory.plans) * call.problem.tableau.stages and seen:
            f.search.refuse_dropped(gradients.params)
        if call.strategy.exact and values is not None and not f.compiled:
            refuse_kept_later(f, gradients.params, y0, trajectory.some_times(SAMPLES))
        trajectory.stats.f_calls_backward += f.f_calls
        trajectory.stats.vjps_backward += f.vjps
        trajectory.stats.stages_backward = None if f.stage_solver is None else f.stage_solver.work
        return None, gradients.y0 if ctx.needs_input_grad[1] else None, gradients.t, *gradients.params


def _require_reversible(given: BackwardPass, strategy: Strategy) -> None:
    """Raise ReversalError in half precision where the strategy's own backward pass would.

    Double backward reverses nothing, but it differentiates the same steps.
    """
    if not strategy.own_steps or eps_of(given.problem, given.field) < TF32_EPS:
        return
    f, stats = given.field.for_another_pass(), given.trajectory.stats
    with torch.no_grad(), f.forward_state.reinstated():
        y0, grad_ys = given.y0.detach(), given.grad_ys.detach()
        strategy.backward(replace(given, field=f, y0=y0, grad_ys=grad_ys, kept=list(given.kept), values=None))
    stats.f_calls_backward += f.f_calls
    stats.vjps_backward += f.vjps


def _differentiable(given: BackwardPass, strategy: Strategy) -> Gradients:
    """Return the exact gradient with a graph, for double backward, by autograd through the recorded steps.

    It takes the memory of `backprop`, which a graph of the gradient needs anyway. Raises UnsupportedCombination if the
    gradient is not exact.
    """
    if not strategy.exact:
        raise UnsupportedCombination(
            f"create_graph=True (double backward) needs an exact gradient, got {strategy}: this one is an "
            'approximation, whose derivative is not that of any computed quantity; use gradient="symplectic"'
        )
    f, gate = given.field, Gate.State()
    y0 = Gate.apply(gate, given.y0)
    t = None if given.t is None else Gate.apply(gate, given.t)
    inputs = [x for x in (y0, t) if x is not None and x.requires_grad]
    with f.behind(gate) as leaves:
        ys = given.problem.replay(f, given.trajectory.plans, y0, t, given.values_of_solve())
        bars = f.pull((ys,), (*inputs, *leaves), (given.grad_ys,), create_graph=True)
        given.settle()
    gate.open = True
    f.vjps += f.calls_on_graph
    return Gradients(
        y0=bars[0] if y0.requires_grad else None,
        t=None if t is None else bars[len(inputs) - 1],
        params=bars[len(inputs) :],
    )
