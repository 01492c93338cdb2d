"""diffrax as a contender: its adjoints, compiled as a whole.

backprop is its default, with checkpoints, direct is DirectAdjoint, continuous is BacksolveAdjoint. A reversible adjoint
is in no release yet: a contender of its own runs it where the installed version has the class ReversibleAdjoint.

Checked against diffrax 0.7.2 on jax 0.10.2. Loss and gradient are one jitted function, so the forward pass cannot be
timed alone, and calls of f cannot be counted. Its default PIDController is an I controller with our safety factor and
limits. Time has the dtype of the state, because JAX computes in only one of float32 and float64. On a CUDA device it
needs JAX's CUDA build.

An implicit method solves each sample by itself (vmap), with steps of its own: of a whole batch it would form a single
dense Jacobian. Newton's tolerances are then those of the steps, as by default.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
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
    one_part,
    one_tensor_at_constant_times,
    several_fields,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.problems import PROBLEMS, Problem
from symplectic_bench.problems.formula import Arithmetic, Formula, LossFormula
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
"""Our explicit method -> diffrax's class. heun2 is adaptive_heun without its error estimate."""

IMPLICIT_CLASSES = {"kvaerno3": "Kvaerno3", "kvaerno5": "Kvaerno5"}

PAIR_CLASSES = {"kencarp4": "KenCarp4"}
"""Methods that take the field in two parts, (explicit, implicit)."""

BY_SAMPLE = {**IMPLICIT_CLASSES, **PAIR_CLASSES}

ADJOINTS = {
    "backprop": "RecursiveCheckpointAdjoint",
    "direct": "DirectAdjoint",
    "continuous": "BacksolveAdjoint",
    "reversible": "ReversibleAdjoint",
}
"""Our gradient -> diffrax's class."""

MOST_STEPS = 4096
"""diffrax's default, at which a solve gives up. Checkpoints, and so time and memory, grow as its square root."""


@dataclass(frozen=True)
class Diffrax:
    """diffrax, for problems whose field is also given as a formula."""

    name: str = "diffrax"
    gradients: tuple[str, ...] = ("backprop", "direct", "continuous")
    framework: Literal["jax"] = "jax"
    compiles: bool = True
    captures: bool = False

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in {**METHOD_CLASSES, **BY_SAMPLE}:
            return f"diffrax has no method {cell.method!r}"
        if cell.method in PAIR_CLASSES and (reason := one_part(cell)):
            return reason
        if cell.method in BY_SAMPLE and cell.steps is not None:
            return f"diffrax takes Newton's tolerances from those of the steps, so {cell.method} takes no fixed steps"
        if reason := several_fields(cell):
            return reason
        if PROBLEMS[cell.problem].formula is None:
            return "diffrax needs the field as a formula, and this problem has none"
        if PROBLEMS[cell.problem].mixed:
            return f"the field of {cell.problem} mixes precisions, and diffrax would compute it in one"
        if PROBLEMS[cell.problem].jumps and cell.steps is not None:
            return f"the field of {cell.problem} jumps, and diffrax ends steps at jumps with tolerances only"
        if cell.gradient == "continuous" and (cell.steps is not None or PROBLEMS[cell.problem].jumps):
            return (
                "diffrax is given the ends of fixed steps, and jumps, in one direction, and BacksolveAdjoint turns back"
            )
        return shared_reason(cell, METHODS[cell.method].adaptive)

    def missing(self) -> str | None:
        if absent := not_installed("diffrax", 'python -m pip install ".[peers]"'):
            return absent
        lacking = [ADJOINTS[name] for name in self.gradients if f"class {ADJOINTS[name]}" not in _source_of_adjoints()]
        return f"diffrax {version('diffrax')} has no {lacking[0]}: install a version that has it" if lacking else None

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
        slowest = int(stats["num_steps"].argmax())  # of the samples, if each has its own steps
        steps = tuple(int(stats[f"num_{kind}_steps"].ravel()[slowest]) for kind in ("accepted", "rejected"))
        return Observation(
            loss=float(loss),
            final_state=as_tensors[0],
            gradient=as_tensors[1:],
            counts=Counts(None, None, None, None, *steps),
            replay=replay_of_equal_steps(cell, problem),
        )


@functools.cache
def _source_of_adjoints() -> str:
    """Return the source of diffrax's adjoints, which is read because importing diffrax would start JAX."""
    found = find_spec("diffrax")
    assert found is not None and found.origin is not None, "it is installed"
    return (Path(found.origin).parent / "_adjoint.py").read_text(encoding="utf-8")


def _require_success(found: Any) -> None:
    """Raise Diverged if a solve ran out of steps, or if Newton's iteration failed at every step size."""
    (_, (_, stats, succeeded)), _ = found
    if not succeeded.all():
        raise Diverged(f"diffrax had not reached the end after {int(stats['num_steps'].max())} steps")


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
    return _value_and_gradient(cell, tuple(problem.t.tolist()), problem.jumps, type(problem.loss).formula)


def _arithmetic(jax: Any) -> Arithmetic:
    """Return JAX's functions under the names that formulas use."""
    jnp, nn = jax.numpy, jax.nn
    own: Any = SimpleNamespace(pi=jnp.pi, exp=jnp.exp, log=jnp.log, sqrt=jnp.sqrt, sin=jnp.sin, cos=jnp.cos)
    own.tanh, own.sigmoid, own.softplus, own.plain = jnp.tanh, nn.sigmoid, nn.softplus, jax.lax.stop_gradient
    own.expm, own.stack, own.concatenate = jax.scipy.linalg.expm, jnp.stack, jnp.concatenate
    return own


@functools.cache  # jit caches by the function object
def _value_and_gradient(
    cell: Cell, times: tuple[float, ...], jumps: tuple[float, ...], loss_of: LossFormula
) -> Callable[..., Any]:
    """Return a function (y0, theta, field_held, held) -> (loss, (final state, stats, succeeded)), gradient.

    The gradient is with respect to y0 and theta. field_held and held are the buffers of field and loss.
    """
    jax, diffrax = start_jax(cell), importlib.import_module("diffrax")
    solver, controller = _solver(cell, diffrax), _controller(cell, times, jumps, jax, diffrax)
    only_end = len(times) == 2

    def solve(y0: Any, theta: Any, field_held: Any) -> tuple[Any, Any, Any]:
        solution = diffrax.diffeqsolve(
            _terms(cell, field_held, _arithmetic(jax), diffrax),
            solver,
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=y0,
            args=theta,
            saveat=diffrax.SaveAt(t0=True, t1=True) if only_end else diffrax.SaveAt(ts=jax.numpy.array(times)),
            stepsize_controller=controller,
            adjoint=getattr(diffrax, ADJOINTS[cell.gradient])(),
            max_steps=max(MOST_STEPS, cell.steps or 0),
            throw=False,  # an exception from compiled code would carry a traceback as its reason
        )
        return solution.ys, solution.stats, solution.result == diffrax.RESULTS.successful

    def by_sample(y0: Any, theta: Any, field_held: Any) -> tuple[Any, Any, Any]:
        own = {name: x for name, x in field_held.items() if x.ndim == 2 and len(x) == len(y0)}

        def one(y0: Any, own: Any) -> tuple[Any, Any, Any]:
            alone = {name: x[None] for name, x in own.items()}
            return solve(y0[None], theta, {**field_held, **alone})

        ys, stats, succeeded = jax.vmap(one)(y0, own)
        return ys[:, :, 0].swapaxes(0, 1), stats, succeeded

    def loss(y0: Any, theta: Any, field_held: Any, held: Any) -> tuple[Any, Any]:
        whole = by_sample if cell.method in BY_SAMPLE else solve
        ys, stats, succeeded = whole(y0, theta, field_held)
        return loss_of(_arithmetic(jax), held, ys), (ys[-1], stats, succeeded)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def _solver(cell: Cell, diffrax: Any) -> Any:
    return getattr(diffrax, {**METHOD_CLASSES, **BY_SAMPLE}[cell.method])()


def _controller(cell: Cell, times: Sequence[float], jumps: Sequence[float], jax: Any, diffrax: Any) -> Any:
    """Return the control of the step size. Steps end at the jumps."""
    if cell.steps is not None:  # given by their ends, because equal steps summed in float32 would miss the end
        return diffrax.StepTo(ts=jax.numpy.linspace(times[0], times[-1], cell.steps + 1))
    controller = diffrax.PIDController(rtol=cell.rtol, atol=cell.atol)
    return diffrax.ClipStepSizeController(controller, jump_ts=jax.numpy.array(jumps)) if jumps else controller


def _terms(cell: Cell, field_held: Any, ops: Arithmetic, diffrax: Any) -> Any:
    """Return the field as diffrax takes it: in two parts for the methods that treat them differently."""
    family = PROBLEMS[cell.problem]
    assert family.formula is not None, "problems without a formula are declined"
    constants = {**family.sizes, **cell.sizes_dict, **field_held}

    def term(formula: Formula) -> Any:
        return diffrax.ODETerm(lambda t, y, theta: formula(ops, theta, constants, t, y))

    if cell.method not in PAIR_CLASSES:
        return term(family.formula)
    assert family.split is not None, "problems without a split are declined"
    return diffrax.MultiTerm(*map(term, family.split))


DIFFRAX: Contender = Diffrax()
DIFFRAX_REVERSIBLE: Contender = Diffrax("diffrax-reversible", ("reversible",))
