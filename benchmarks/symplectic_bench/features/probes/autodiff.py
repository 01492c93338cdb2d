"""Memory, and what PyTorch's transforms make of a solve."""

import torch

from symplectic_bench.features.answer import Lacks, Wrong, expect
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, LEFT, RATE, Y0_SUM, Decay, start, times

AUTODIFF = Family("Memory and transforms")


@AUTODIFF.probe("no graph of func's calls is kept in the forward pass")
def no_graph(library: Library) -> None:
    class Watched(Decay):
        graphs = 0

        def forward(self, t, y):
            type(self).graphs += torch.is_grad_enabled() and (-self.rate * y).requires_grad
            return super().forward(t, y)

    ys = library.solve(Watched(), start(), times())
    if Watched.graphs > 2 and ys.requires_grad:
        raise Lacks("backpropagates through the solver: the graph of every call is kept")


@AUTODIFF.probe("gradient of a gradient")
def double_backward(library: Library) -> None:
    func, y0 = Decay(), start()
    (first,) = torch.autograd.grad(library.solve(func, y0, times())[-1].sum(), func.rate, create_graph=True)
    if not first.requires_grad:
        raise Wrong("detached without an error")
    (second,) = torch.autograd.grad(first, func.rate)
    expect(second, END_SUM)


@AUTODIFF.probe("backward twice (retain_graph)")
def retain_graph(library: Library) -> None:
    func = Decay()
    loss = library.solve(func, start(), times())[-1].sum()
    loss.backward(retain_graph=True)
    loss.backward()
    expect(func.rate.grad, -2 * END_SUM)


@AUTODIFF.probe("forward mode (torch.func.jvp)")
def forward_mode(library: Library) -> None:
    func, y0 = Decay(), start().detach()
    pair = torch.func.jvp(lambda y: library.solve(func, y, times())[-1], (y0,), (torch.ones_like(y0),))
    expect(pair[1], torch.full((2, 2), LEFT))


@AUTODIFF.probe("torch.func.grad")
def func_grad(library: Library) -> None:
    func, y0 = Decay(), start().detach()
    expect(torch.func.grad(lambda y: library.solve(func, y, times())[-1].sum())(y0), torch.full((2, 2), LEFT))


@AUTODIFF.probe("vmap over initial states, with adaptive steps")
def vmap(library: Library) -> None:
    func, y0 = Decay(), start().detach()
    ends = torch.func.vmap(lambda y: library.solve(func, y[None], times())[-1, 0])(y0)
    expect(ends, y0 * LEFT)


class Plain(Decay):
    """dy/dt without a count, which torch.compile would specialise on."""

    def forward(self, t, y):
        return -self.rate * y


@AUTODIFF.probe("torch.compile around the solve, with the gradient")
def compiled(library: Library) -> None:
    func = Plain()
    solve = torch.compile(lambda y: library.solve(func, y, times())[-1].sum(), backend="aot_eager")
    solve(start()).backward()
    expect(func.rate.grad, -END_SUM)


@AUTODIFF.probe("the whole solve in one graph (fullgraph=True)")
def fullgraph(library: Library) -> None:
    func = Plain()
    solve = torch.compile(lambda y: library.solve(func, y, times())[-1].sum(), backend="aot_eager", fullgraph=True)
    expect(solve(start()), Y0_SUM * float(torch.exp(torch.tensor(-RATE))))
