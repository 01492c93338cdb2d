"""What a solve must be for a user to capture it in a CUDA graph of their own: one that reads nothing on the host."""

import torch
from torch import Tensor

from symplectic_adjoint.backward.strategy import Strategy
from symplectic_adjoint.field.host_reads import is_capturing, refuse_capture
from symplectic_adjoint.solve.problem import Problem
from symplectic_adjoint.solve.step_sequences import ADAPTIVE


def require_capturable(problem: Problem, strategy: Strategy, y0: Tensor, t: Tensor) -> None:
    """Raise UnsupportedCombination, with what to do instead, if a solve is to be captured and cannot be."""
    if not is_capturing(y0.device):
        return
    for found, what in (
        (problem.options.control is not None, ADAPTIVE),
        (problem.tableau.implicit, "an implicit method, whose iterations the host ends: use an explicit one"),
        (problem.event is not None, "event_fn, which the host evaluates after each step: leave it out"),
        (problem.options.stop is not None, "option 'stop', which the host asks after each step: leave it out"),
        (
            problem.compile,
            "compile=True, whose first calls measure: compile func itself, before the capture",
        ),
    ):
        if found:
            refuse_capture(what)
    require_capturable_gradient(strategy, y0, t if torch.is_grad_enabled() and t.requires_grad else None)


def require_capturable_gradient(strategy: Strategy, y0: Tensor, t: Tensor | None) -> None:
    """Raise UnsupportedCombination if a gradient is to be captured and cannot be. t: None unless dL/dt is needed."""
    if not is_capturing(y0.device):
        return
    if t is not None:
        refuse_capture("a t that requires a gradient, which would be copied to the host: detach() it")
    if strategy.obstacle_to_users_capture is not None:
        refuse_capture(strategy.obstacle_to_users_capture)
