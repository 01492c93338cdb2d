"""A solve as a single node of the caller's autograd graph: the one Function that differentiates it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from symplectic_adjoint.backward.held_graphs import StageGraph
from symplectic_adjoint.backward.strategy import BackwardPass, ForwardPass, Gradients, Strategy
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.transforms import transforming
from symplectic_adjoint.methods.tableau import ButcherTableau
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.time_loop import KeepNothing
from symplectic_adjoint.solve.trajectory import Trajectory


def run(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> tuple[Tensor, Trajectory]:
    """Solve the problem so that the caller's backward pass goes through `strategy`.

    Nothing is kept where no gradient can be asked for. Under torch.func or forward mode every exact gradient is that
    of the operations themselves: they see all of them, or none.
    """
    grad_mode, wants_t = torch.is_grad_enabled(), t.requires_grad
    if transforming():
        if not strategy.exact:
            raise UnsupportedCombination(f"torch.func and forward mode need an exact gradient, got {strategy}")
        return problem.solve(y0, KeepNothing(), on_graph=True, t=t)
    differentiates = grad_mode and (wants_t or y0.requires_grad or bool(problem.parameters.trainable))
    choice = None
    if differentiates:
        strategy, choice = strategy.resolved(ForwardPass(problem, y0.detach(), wants_t))
    if grad_mode and strategy.on_callers_graph:  # also for tensors that only func knows of
        ys, trajectory = problem.solve(y0, KeepNothing(), on_graph=True, t=t if wants_t else None)
        if ys.requires_grad:
            ys.register_hook(_vjp_counter(trajectory, problem.tableau))
        trajectory.stats.choice = choice
        return ys, trajectory
    if not differentiates or strategy.on_callers_graph:
        with torch.no_grad():
            return problem.solve(y0.detach(), KeepNothing(), watch=grad_mode)
    call = _Call(problem, strategy)
    ys = _Solve.apply(call, y0, t, *problem.parameters.trainable, *problem.parameters.frozen)
    assert call.trajectory is not None
    return ys, call.trajectory


def _vjp_counter(trajectory: Trajectory, tableau: ButcherTableau) -> Callable[[Tensor], None]:
    """A hook that counts the VJPs which autograd does by itself: those of the f calls of the accepted steps."""
    stats, vjps = trajectory.stats, trajectory.f_calls_on_graph(tableau)

    def count(grad: Tensor) -> None:
        del grad
        stats.vjps_backward += vjps

    return count


@dataclass
class _Call:
    """One solve in the Function: what to do, and what came of it besides ys."""

    problem: Problem
    strategy: Strategy
    trajectory: Trajectory | None = None
    guarded: int = 0
    steps: Sequence[int] = ()
    once: list[Tensor] = field(default_factory=list)
    graphs: list[StageGraph] = field(default_factory=list)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, y0: Tensor, t: Tensor, *params: Tensor) -> Tensor:
        # params are inputs so that autograd knows of them, the frozen ones to be guarded; func reads its own
        y = y0.detach()
        keeper = call.strategy.keeper(ForwardPass(call.problem, y, ctx.needs_input_grad[2]))
        ys, trajectory = call.problem.solve(y, keeper, watch=True)
        trajectory.field.settle()
        trajectory.stats.f_calls_forward = trajectory.field.f_calls
        call.trajectory, call.problem = trajectory, call.problem.ended(trajectory)
        trajectory.stats.choice = keeper.choice
        call.steps, call.last_stages, call.graphs = keeper.steps, list(keeper.last_stages), list(keeper.graphs)
        constants = trajectory.field.forward_state.constant
        outputs = (ys,) if call.strategy.uses_outputs else ()
        # Everything goes through save_for_backward: a change in place before the backward pass raises.
        ctx.save_for_backward(y0, t, *params, *constants, *outputs, *keeper.kept)
        call.guarded = len(params) + len(constants)
        ctx.call = call
        return ys

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad_ys,) = grad_outputs
        call: _Call = ctx.call
        y0, t, *kept = ctx.saved_tensors
        del kept[: call.guarded]  # func reads those itself; saving them guards them
        # Unless the graph is retained: what is kept is then ours alone, and freed as it is used. A graph that is
        # differentiated further still has these tensors as its inputs.
        ctx.maybe_clear_saved_tensors()
        ys = kept.pop(0) if call.strategy.uses_outputs else None
        trajectory = call.trajectory
        assert trajectory is not None
        f = trajectory.field.again()
        t = t if ctx.needs_input_grad[2] else None
        given = BackwardPass(call.problem, trajectory, f, y0, t, kept, call.steps, call.last_stages, call.graphs, ys, grad_ys)
        create_graph = torch.is_grad_enabled()
        with f.forward_state.again():
            gradients = _differentiable(given, call.strategy) if create_graph else call.strategy.backward(given)
        if call.strategy.exact and f.vjps >= len(trajectory.plans) * call.problem.tableau.stages and not f.compiled:
            f.search.refuse_forgotten(gradients.params)
        trajectory.stats.f_calls_backward += f.f_calls
        trajectory.stats.vjps_backward += f.vjps
        frozen = (None,) * len(call.problem.parameters.frozen)
        return None, gradients.y0 if ctx.needs_input_grad[1] else None, gradients.t, *gradients.params, *frozen


def _differentiable(given: BackwardPass, strategy: Strategy) -> Gradients:
    """The exact gradient with a graph of its own, for double backward: autograd over the recorded steps.

    It takes the memory of `backprop`, which a graph of the gradient needs anyway.
    """
    if not strategy.exact:
        raise UnsupportedCombination(
            f"create_graph=True (double backward) needs an exact gradient, got {strategy}: its gradient is an "
            'approximation whose own derivative is not that of anything computed; take gradient="symplectic"'
        )
    f, gate = given.field, _Gate.State()
    y0 = _Gate.apply(gate, given.y0)
    t = None if given.t is None else _Gate.apply(gate, given.t)
    ys = given.problem.replay(f, given.trajectory.plans, y0, t)
    inputs = [x for x in (y0, t) if x is not None and x.requires_grad]
    bars = f.pull((ys,), (*inputs, *f.params), (given.grad_ys,), create_graph=True)
    gate.open = True
    f.vjps += f.f_calls
    return Gradients(
        y0=bars[0] if y0.requires_grad else None,
        t=None if t is None else bars[len(inputs) - 1],
        params=bars[len(inputs) :],
    )


class _Gate(torch.autograd.Function):
    """The identity, whose backward passes nothing on while it is shut.

    y0 and t may themselves be computed from a parameter. The replay's own gradient must end at them, or the
    parameter would get here what it gets from the caller's graph later; second derivatives must go on.
    """

    @dataclass
    class State:
        open: bool = False

    @staticmethod
    def forward(ctx: Any, state: State, x: Tensor) -> Tensor:
        ctx.state = state
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor | None]:
        return None, grad_outputs[0] if ctx.state.open else None
