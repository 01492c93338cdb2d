"""Mistakes and changes that would give wrong numbers: the right gradient, or an error, is a yes."""

import torch
from torch import nn

from symplectic_bench.features.answer import Wrong, expect, expect_stop
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, Decay, start, times

SAFETY = Family("Right, or an error")


def right_or_stop(func: Decay, change, library: Library) -> None:
    """Check that the gradient is right, or the backward pass stops, if func is changed before it."""
    loss = library.solve(func, start(), times())[-1].sum()
    change()
    try:
        loss.backward()
    except Exception:
        return
    expect(func.rate.grad, -END_SUM)


@SAFETY.probe("a weight is changed in place between the passes")
def weight_changed(library: Library) -> None:
    func = Decay()

    def change() -> None:
        with torch.no_grad():
            func.rate.mul_(1.5)

    right_or_stop(func, change, library)


@SAFETY.probe("a number that func reads is changed between the passes")
def number_changed(library: Library) -> None:
    class Scaled(Decay):
        scale = 1.0

        def forward(self, t, y):
            return self.scale * super().forward(t, y)

    func = Scaled()
    right_or_stop(func, lambda: setattr(func, "scale", 1.5), library)


@SAFETY.probe("an object that func reads is changed between the passes")
def object_changed(library: Library) -> None:
    settings = {"scale": 1.0}

    class Scaled(Decay):
        def forward(self, t, y):
            return settings["scale"] * super().forward(t, y)

    right_or_stop(Scaled(), lambda: settings.update(scale=1.5), library)


@SAFETY.probe("the initial state is changed in place between the passes")
def state_changed(library: Library) -> None:
    class Cubic(Decay):
        def forward(self, t, y):
            return -self.rate * y**3

    func, y0 = Cubic(), start().detach()
    loss = library.solve(func, y0, times())[-1].sum()
    y0.mul_(2)
    y = start().detach()
    known = -(y**3 / (1 + 2 * 0.7 * y**2) ** 1.5).sum()
    try:
        loss.backward()
    except Exception:
        return
    expect(func.rate.grad, known)


@SAFETY.probe("dropout in func: the mask that is drawn again is the same")
def dropout(library: Library) -> None:
    masks: list[torch.Tensor] = []

    class Dropped(Decay):
        def forward(self, t, y):
            mask = nn.functional.dropout(torch.ones_like(y), 0.5)
            masks.append(mask.detach())
            return super().forward(t, y) * mask

    torch.manual_seed(0)
    func = Dropped()
    loss = library.solve(func, start(), times(), steps=4)[-1].sum()
    forward = len(masks)
    try:
        loss.backward()
    except Exception:
        return
    drawn = masks[:forward]
    if any(not any(torch.equal(mask, one) for one in drawn) for mask in masks[forward:]):
        raise Wrong("other masks in the backward pass")


@SAFETY.probe("func returns a shape that broadcasts")
def broadcast(library: Library) -> None:
    expect_stop(lambda: library.solve(Broadcast(), start(), times()))


class Broadcast(Decay):
    """dy/dt with one number where the state has four."""

    def forward(self, t, y):
        return super().forward(t, y).sum().reshape(1, 1)


@SAFETY.probe("func returns NaN")
def nan(library: Library) -> None:
    class Nan(Decay):
        def forward(self, t, y):
            return super().forward(t, y) * float("nan")

    expect_stop(lambda: library.solve(Nan(), start(), times()))


@SAFETY.probe("an option of no such name")
def unknown_option(library: Library) -> None:
    expect_stop(lambda: library.solve(Decay(), start(), times(), no_such_option=1.0))


@SAFETY.probe("times that are not in order")
def disordered(library: Library) -> None:
    expect_stop(lambda: library.solve(Decay(), start(), times(0.0, 1.0, 0.5)))
