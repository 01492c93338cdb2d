"""diffrax as a contender: its default gradient, backpropagation with checkpoints, compiled as a whole.

Checked against diffrax 0.7.2 on jax 0.10.2. Loss and gradient are one jitted function, so the forward pass cannot be
timed alone, and calls of f cannot be counted. Its default PIDController is an I controller with our safety factor and
limits. Time has the dtype of the state, because JAX computes in only one of float32 and float64. On a CUDA device it
needs JAX's CUDA build.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.contender import Contender
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.gradient_run import WholeRun
from symplectic_bench.contenders.jax_device import device_of, start_jax
from symplectic_bench.contenders.observation import Observation, replay_of_equal_steps
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    several_fields,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.problems import PROBLEMS, Problem
from symplectic_bench.problems.formula import Arithmetic, LossFormula
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import Diverged

METHOD_CLASSES = {
    "euler": "Euler",
    "midpoint": "Midpoint",
    "heun2": "Heun",
    "adaptive_heun": "Heun",
    "bosh3": "Bosh3",
    "dopri5": "Dopri5",
    "tsit5": "Tsit5",
    "dopri8": "Dopri8",
}
"""Our method -> diffrax's class. heun2 is adaptive_heun without its error estimate."""

MOST_STEPS = 4096
"""diffrax's default, at which a solve gives up. Checkpoints, and so time and memory, grow as its square root."""


@dataclass(frozen=True)
class Diffrax:
    """diffrax, for problems whose field is also given as a formula."""

    name: str = "diffrax"
    gradients: tuple[str, ...] = ("backprop",)
    framework: Literal["jax"] = "jax"
    compiles: bool = True
    captures: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in METHOD_CLASSES:
            return f"diffrax has no method {cell.method!r}"
        if reason := several_fields(cell):
            return reason
        if PROBLEMS[cell.problem].formula is None:
            return "diffrax needs the field as a formula, and this problem has none"
        if PROBLEMS[cell.problem].mixed:
            return f"the field of {cell.problem} mixes precisions, and diffrax would compute it in one"
        if PROBLEMS[cell.problem].jumps:
            return f"the field of {cell.problem} jumps, and diffrax is not passed the jump times"
        return shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        return not_installed("diffrax", 'python -m pip install ".[peers]"')

    def gradient(self, problem: Problem, cell: Cell) -> WholeRun:
        jax, compute = start_jax(cell), _compiled(problem, cell)
        arguments = _arguments(problem, device_of(cell, jax))

        def complete() -> None:
            _require_success(jax.block_until_ready(compute(*arguments)))

        return WholeRun(complete)

    def observe(self, problem: Problem, cell: Cell) -> Observation:
        jax, compute = start_jax(cell), _compiled(problem, cell)
        found = jax.block_until_ready(compute(*_arguments(problem, device_of(cell, jax))))
        _require_success(found)
        (loss, (final_state, stats, _)), (by_y0, by_theta) = found
        as_tensors = [torch.tensor(jax.device_get(g)) for g in (final_state, by_y0, *by_theta)]
        steps = int(stats["num_accepted_steps"]), int(stats["num_rejected_steps"])
        return Observation(
            loss=float(loss),
            final_state=as_tensors[0],
            gradient=as_tensors[1:],
            counts=Counts(None, None, None, None, *steps),
            replay=replay_of_equal_steps(cell, problem),
        )


def _require_success(found: Any) -> None:
    """Raise Diverged if the solve ran out of steps, which is the only way it can fail."""
    (_, (_, stats, succeeded)), _ = found
    if not succeeded:
        raise Diverged(f"diffrax had not reached the end after {int(stats['num_steps'])} steps")


def _arguments(problem: Problem, device: Any) -> tuple[Any, ...]:
    """Return the arguments of the compiled function, on a device of JAX: y0, theta, and the buffers of field and loss.

    The function computes where they are.
    """
    jax = importlib.import_module("jax")

    def array(tensor: Tensor) -> Any:
        return jax.device_put(tensor.detach().cpu().numpy(), device)

    held = [{name: array(x) for name, x in module.named_buffers()} for module in (problem.func, problem.loss)]
    return array(problem.y0), [array(p) for p in problem.parameters], *held


def _compiled(problem: Problem, cell: Cell) -> Callable[..., Any]:
    return _value_and_gradient(cell, tuple(problem.t.tolist()), type(problem.loss).formula)


def _arithmetic(jax: Any) -> Arithmetic:
    """Return JAX's functions under the names that formulas use."""
    jnp, nn = jax.numpy, jax.nn
    own: Any = SimpleNamespace(pi=jnp.pi, exp=jnp.exp, log=jnp.log, sqrt=jnp.sqrt, sin=jnp.sin, cos=jnp.cos)
    own.tanh, own.sigmoid, own.softplus, own.plain = jnp.tanh, nn.sigmoid, nn.softplus, jax.lax.stop_gradient
    own.expm, own.stack, own.concatenate = jax.scipy.linalg.expm, jnp.stack, jnp.concatenate
    return own


@functools.cache  # jit caches by the function object
def _value_and_gradient(cell: Cell, times: tuple[float, ...], loss_of: LossFormula) -> Callable[..., Any]:
    """Return a function (y0, theta, field_held, held) -> (loss, (final state, stats, succeeded)), gradient.

    The gradient is with respect to y0 and theta. field_held and held are the buffers of field and loss.
    """
    jax, diffrax = start_jax(cell), importlib.import_module("diffrax")
    family, ops = PROBLEMS[cell.problem], _arithmetic(jax)
    formula = family.formula
    assert formula is not None, "problems without a formula are declined"
    sizes = {**family.sizes, **cell.sizes_dict}
    solver = getattr(diffrax, METHOD_CLASSES[cell.method])()
    if cell.steps is None:
        controller = diffrax.PIDController(rtol=cell.rtol, atol=cell.atol)
    else:  # given by their ends, because equal steps summed in float32 would miss the end
        controller = diffrax.StepTo(ts=jax.numpy.linspace(times[0], times[-1], cell.steps + 1))
    only_end = len(times) == 2

    def loss(y0: Any, theta: Any, field_held: Any, held: Any) -> tuple[Any, Any]:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: formula(ops, args, {**sizes, **field_held}, t, y)),
            solver,
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=y0,
            args=theta,
            saveat=diffrax.SaveAt(t0=True, t1=True) if only_end else diffrax.SaveAt(ts=jax.numpy.array(times)),
            stepsize_controller=controller,
            max_steps=max(MOST_STEPS, cell.steps or 0),
            throw=False,  # an exception from compiled code would carry a traceback as its reason
        )
        succeeded = solution.result == diffrax.RESULTS.successful
        return loss_of(ops, held, solution.ys), (solution.ys[-1], solution.stats, succeeded)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


DIFFRAX: Contender = Diffrax()
