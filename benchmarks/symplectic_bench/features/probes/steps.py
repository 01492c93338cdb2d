"""Steps, controls and methods."""

import torch

from symplectic_bench.features.answer import Lacks, Wrong, expect, expect_stop
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, Decay, start, times

STEPS = Family("Steps and methods")


class Stirred(Decay):
    """dy/dt = -rate y^3, fast where y is large."""

    def forward(self, t, y):
        return -self.rate * y**3


@STEPS.probe("steps per sample: a fast neighbour in the batch leaves a sample's result as it is")
def per_sample_steps(library: Library) -> None:
    calm = torch.tensor([[0.5, 0.1]], dtype=torch.float64)
    wild = torch.tensor([[30.0, 20.0]], dtype=torch.float64)
    alone = library.solve(Stirred(), calm, times(), rtol=1e-3, atol=1e-4)[-1, 0]
    beside = library.solve(Stirred(), torch.cat((calm, wild)), times(), rtol=1e-3, atol=1e-4)[-1, 0]
    moved = float(((alone - beside).abs() / alone.abs()).max())
    if moved > 1e-12:
        raise Lacks("one step size for the batch, so its samples move each other")


@STEPS.probe("a tolerance for each component")
def tolerance_per_component(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times(), atol=torch.full((2, 2), 1e-10, dtype=torch.float64))[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@STEPS.probe("a first step")
def first_step(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times(), first_step=0.01)[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@STEPS.probe("a largest step: 0.01 takes 100 steps")
def max_step(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times(), max_step=0.01)
    if func.called < 200:
        raise Wrong(f"{func.called} calls of func")


@STEPS.probe("a limit on the number of steps, which stops the solve")
def max_steps(library: Library) -> None:
    expect_stop(lambda: library.solve(Decay(), start(), times(0.0, 100.0), max_num_steps=3))


@STEPS.probe("a call of the user's for each accepted step")
def callback(library: Library) -> None:
    class Watched(Decay):
        steps = 0

        def callback_accept_step(self, t0, y0, dt):
            type(self).steps += 1

    library.solve(Watched(), start(), times())
    if not Watched.steps:
        raise Lacks("none is called")


@STEPS.probe("the number of calls of func, reported and right")
def counts(library: Library) -> None:
    func = Decay()
    reported = library.calls(func, start(), times())
    if reported != func.called:
        raise Wrong(f"{reported} reported, {func.called} made")


@STEPS.probe("stiff: rate 1e6 in 10,000 calls of func, with the gradient")
def stiff(library: Library) -> None:
    class Stiff(Decay):
        def forward(self, t, y):
            self.called += 1
            if self.called > 10_000:
                raise RuntimeError("more than 10,000 calls of func")
            return -1e6 * (y - self.rate * torch.cos(torch.as_tensor(t)))

    func = Stiff()
    library.stiff(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, 4 * float(torch.cos(torch.tensor(1.0))), 1e-3)


@STEPS.probe("implicit-explicit (IMEX), with the gradient")
def imex(library: Library) -> None:
    fast, slow = Decay(), Decay()
    library.split(slow, fast, start(), times())[-1].sum().backward()
    expect(fast.rate.grad, -END_SUM * float(torch.exp(torch.tensor(-0.7))))


@STEPS.probe("a multistep method (Adams), with the gradient")
def multistep(library: Library) -> None:
    func = Decay()
    library.multistep(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, -END_SUM, 1e-3)


@STEPS.probe("a reversible method whose gradient keeps no states")
def reversible(library: Library) -> None:
    func = Decay()
    library.reversible(func, start(), times())[-1].sum().backward()
    expect(func.rate.grad, -END_SUM, 1e-3)


@STEPS.probe("stochastic equations (SDEs)")
def sde(library: Library) -> None:
    raise Lacks("ODEs only: see torchsde")
