"""Gradients with respect to each kind of input, and their exactness."""

import torch
from torch import nn

from symplectic_bench.features.answer import expect
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, LEFT, RATE, Decay, start, times

GRADIENTS = Family("Gradients")


@GRADIENTS.probe("of a module's parameters")
def parameters(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@GRADIENTS.probe("of the initial state")
def initial_state(library: Library) -> None:
    y0 = start()
    library.solve(Decay(), y0, times())[-1].sum().backward()
    expect(y0.grad, torch.full((2, 2), LEFT))


@GRADIENTS.probe("of the end time")
def end_time(library: Library) -> None:
    t = times().requires_grad_()
    library.solve(Decay(), start(), t)[-1].sum().backward()
    expect(None if t.grad is None else t.grad[1], -RATE * END_SUM)


@GRADIENTS.probe("of the start time")
def start_time(library: Library) -> None:
    t = times().requires_grad_()
    library.solve(Decay(), start(), t)[-1].sum().backward()
    expect(None if t.grad is None else t.grad[0], RATE * END_SUM)


@GRADIENTS.probe("of an output time between")
def output_time(library: Library) -> None:
    t = times(0.0, 0.4, 1.0).requires_grad_()
    ys = library.solve(Decay(), start(), t)
    ys[1].sum().backward()
    expect(None if t.grad is None else t.grad[1], -RATE * float(ys[1].sum()))


@GRADIENTS.probe("of a tensor that a lambda closes over, which the call does not name")
def closure(library: Library) -> None:
    rate = torch.tensor(RATE, dtype=torch.float64, requires_grad=True)
    library.solve(lambda t, y: -rate * y, start(), times())[-1].sum().backward()
    expect(rate.grad, -END_SUM)


@GRADIENTS.probe("of what a tensor that a lambda closes over was computed from")
def closure_non_leaf(library: Library) -> None:
    root = torch.tensor(RATE**0.5, dtype=torch.float64, requires_grad=True)
    rate = root**2
    library.solve(lambda t, y: -rate * y, start(), times())[-1].sum().backward()
    expect(root.grad, -2 * RATE**0.5 * END_SUM)


@GRADIENTS.probe("of a weight that a module computes before the solve, and holds")
def held_non_leaf(library: Library) -> None:
    func, root = Decay(), torch.tensor(RATE**0.5, dtype=torch.float64, requires_grad=True)
    del func.rate
    setattr(func, "rate", root**2)  # noqa: B010  # as a hypernetwork sets it
    library.solve(func, start(), times())[-1].sum().backward()
    expect(root.grad, -2 * RATE**0.5 * END_SUM)


@GRADIENTS.probe("with a parameter that func does not use")
def unused_parameter(library: Library) -> None:
    func = Decay()
    func.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    library.solve(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)
    if func.unused.grad is not None:
        expect(func.unused.grad + 1, torch.ones(3))


@GRADIENTS.probe("with autograd inside func (a Hamiltonian field)")
def autograd_inside(library: Library) -> None:
    class Hamiltonian(Decay):
        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            del t
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                energy = self.rate * y.square().sum() / 2
                return -torch.autograd.grad(energy, y, create_graph=True)[0]

    func = Hamiltonian()
    library.solve(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@GRADIENTS.probe("exact for the steps taken: equal to differences of the same 8 large steps to 1e-6")
def exact(library: Library) -> None:
    class Cubic(Decay):
        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return -self.rate * y**3

    func, step = Cubic(), 1e-5
    library.solve(func, start(), times(), steps=8)[-1].sum().backward()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            moved = Cubic()
            moved.rate.add_(sign * step)
            ends.append(float(library.solve(moved, start(), times(), steps=8)[-1].sum()))
    expect(func.rate.grad, (ends[0] - ends[1]) / (2 * step), 1e-6)
