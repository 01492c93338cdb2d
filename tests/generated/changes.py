"""What changes after each solve, before the backward pass: by name, and where it applies."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Change:
    """A change of what is around func. act(closure, k) makes it for the k-th time; applies(kind) says whether it can.

    at_end: whether it is made after the last solve only, because later solves would see it. weight: how often it is
    drawn; seldom where a solve may be refused.
    """

    act: Callable
    applies: Callable = lambda kind: True
    at_end: bool = False
    weight: int = 2


def of_model(kind):
    return kind.has_model


@torch.no_grad()
def _norm_statistics(closure, k):
    """Run the head that func ignores: it updates its statistics in place, an integer among them."""
    closure.model.head(torch.full((3, 2), float(k)))


def _counter(closure, k):
    closure.model.calls += 1


@torch.no_grad()
def _teacher(closure, k):
    """Move the teacher towards the student."""
    for p, q in zip(closure.model.teacher.parameters(), closure.model.student.parameters(), strict=True):
        p.lerp_(q, 0.1)


def _other_step(closure, k):
    """Take an optimizer step on another part of the model."""
    student = closure.model.student
    with torch.enable_grad():
        gradients = torch.autograd.grad(student(torch.ones(1, 2)).sum(), list(student.parameters()))
    for p, gradient in zip(student.parameters(), gradients, strict=True):
        p.grad = gradient
    torch.optim.SGD(student.parameters(), lr=0.1).step()


def _mode(closure, k):
    closure.model.train(not closure.model.training)


@torch.no_grad()
def _own_step(closure, k):
    """Change a leaf that the field is computed from in place, as its optimizer does."""
    closure.leaves["W0"].mul_(1.1)


def _data_assigned(closure, k):
    """Assign the data of that leaf, which counts no version."""
    closure.leaves["W0"].data = closure.leaves["W0"].data * 1.1


CHANGES = {
    "nothing": Change(lambda closure, k: None, weight=6),
    "turned": Change(lambda closure, k: closure.turn(k), lambda kind: kind.turns is not None, weight=8),
    "touched": Change(lambda closure, k: closure.touch(k), lambda kind: hasattr(kind, "touch")),
    "mode": Change(_mode, of_model),
    "norm statistics": Change(_norm_statistics, of_model),
    "counter": Change(_counter, of_model),
    "teacher": Change(_teacher, of_model),
    "other step": Change(_other_step, of_model),
    "own step": Change(_own_step, at_end=True, weight=1),
    # Not where an encoder has saved the leaf: its own backward pass reads the new data, whatever the solver does.
    "data assigned": Change(_data_assigned, lambda kind: not kind.encodes, at_end=True, weight=1),
}
"""By name. "turned" and "mode" change what later solves compute; see World."""
