"""Passes with captured programs: repeated if the programs are outdated, and without them if func allows none."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from symplectic_adjoint.backward.strategy import BackwardPass, Gradients
from symplectic_adjoint.errors import FunctionChanged, NotCapturable
from symplectic_adjoint.field.captured import ProgramsOutdated
from symplectic_adjoint.field.transforms import batched
from symplectic_adjoint.solve.capture import refusal_of, remember_refusal
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.stats import Captured
from symplectic_adjoint.solve.trajectory import Trajectory

OUT_OF_MEMORY = "no memory to capture them"

Solved = tuple[Tensor, Trajectory]


def run_captured(problem: Problem, run: Callable[[Problem], Solved]) -> Solved:
    """Return run(problem), with captured programs if func allows them.

    If it does not, raise NotCapturable with capture=True; with "auto" remember it and run without programs, as when
    there is no memory to capture. Programs whose values are not func's are recorded anew, once.
    """
    reason = refusal_of(problem.caller, problem.reach) if problem.capture == "auto" else None
    if reason is None:
        try:
            return _run_current(problem, run)
        except NotCapturable as error:
            if problem.capture is True:
                raise
            reason = str(error)
            remember_refusal(problem.caller, problem.reach, reason)
        except torch.cuda.OutOfMemoryError:
            reason = OUT_OF_MEMORY
    ys, trajectory = run(replace(problem, capture=False))
    trajectory.stats.capture = Captured(graphs=False, fallback=reason)
    return ys, trajectory


def _run_current(problem: Problem, run: Callable[[Problem], Solved]) -> Solved:
    try:
        return run(problem)
    except ProgramsOutdated:
        try:
            return run(replace(problem, fresh_programs=True))
        except ProgramsOutdated:
            raise NotCapturable(
                "capture=True: func returns other values than a program that was recorded a moment before: it depends "
                "on something that changes from call to call, besides t and y. Leave capture out, or compute that "
                "outside func"
            ) from None


def with_programs(given: BackwardPass, compute: Callable[[BackwardPass], Gradients]) -> Gradients:
    """Return compute(given), with the captured programs of the solve, if it has any.

    Without them if one cannot be recorded: for lack of memory or, with capture="auto", because func does not allow it.
    """
    captured, stats = given.field.captured, given.trajectory.stats.capture
    if captured is None or stats is None or not given.trajectory.plans:
        given.field.captured = None
        return compute(given)
    if batched(given.grad_ys):
        without_programs(given, "a batch of cotangents (vmap)")
        return compute(given)
    try:
        return compute(replace(given, kept=list(given.kept), last_stages=list(given.last_stages)))
    except NotCapturable as error:
        if given.problem.capture is True:
            raise
        reason = str(error)
        remember_refusal(given.problem.caller, given.problem.reach, reason)
    except torch.cuda.OutOfMemoryError:
        captured.forget()
        reason = OUT_OF_MEMORY
    finally:
        stats.recorded += captured.recorded
        stats.replayed += captured.replayed
    without_programs(given, reason)
    return compute(given)


def settled(given: BackwardPass, flag: Tensor | None) -> bool:
    """Return given.settle(flag). Forget the programs if func changed between the passes: they may hold the change."""
    try:
        return given.settle(flag)
    except FunctionChanged:
        if given.field.captured is not None:
            given.field.captured.forget()
        raise


def without_programs(given: BackwardPass, reason: str) -> None:
    """Let the backward pass call func itself, and say why in the stats of the solve."""
    if given.field.captured is not None:
        given.field.captured = None
        if given.trajectory.stats.capture is not None:
            given.trajectory.stats.capture.fallback = reason
