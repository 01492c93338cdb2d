"""Times, outputs and events."""

import math

import torch

from symplectic_bench.features.answer import Lacks, expect
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, LEFT, RATE, Y0_SUM, Decay, start, times

TIMES = Family("Times and outputs")
EVENTS = Family("Events")


@TIMES.probe("states at several times, with their gradients")
def several_outputs(library: Library) -> None:
    func, t = Decay(), times(0.0, 0.3, 1.0)
    ys = library.solve(func, start(), t)
    expect(ys.sum((1, 2)), Y0_SUM * torch.exp(-RATE * t))
    ys.sum().backward()
    expect(func.rate.grad, -Y0_SUM * float((t * torch.exp(-RATE * t)).sum()))


@TIMES.probe("100 outputs at no more than twice the calls of func of 2, gradient included")
def many_outputs(library: Library) -> None:
    counts = []
    for outputs in (2, 100):
        func = Decay()
        library.solve(func, start(), torch.linspace(0, 1, outputs, dtype=torch.float64)).sum().backward()
        counts.append(func.called)
    if counts[1] > 2 * counts[0]:
        raise Lacks(f"{counts[1] / counts[0]:.0f} times the calls")


@TIMES.probe("decreasing times")
def decreasing(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times(1.0, 0.0))[-1].sum().backward()
    expect(func.rate.grad, Y0_SUM / LEFT)


@TIMES.probe("a time given twice")
def repeated_time(library: Library) -> None:
    func = Decay()
    library.solve(func, start(), times(0.0, 1.0, 1.0))[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@TIMES.probe("the solution as a function of time, with its gradient")
def dense(library: Library) -> None:
    func = Decay()
    library.dense(func, start(), times()[0], times()[1])(times(0.35)[0]).sum().backward()
    expect(func.rate.grad, -0.35 * Y0_SUM * math.exp(-0.35 * RATE))


@TIMES.probe("a known jump of func (jump_t), with the gradient")
def known_jump(library: Library) -> None:
    class Forced(Decay):
        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return -self.rate * y * (t >= 0.5)

    func = Forced()
    library.solve(func, start(), times(), jump_t=times(0.5)).sum((1, 2))[-1].backward()
    expect(func.rate.grad, -0.5 * Y0_SUM * math.exp(-0.5 * RATE), 1e-6)


@TIMES.probe("each sample of a batch at times of its own")
def times_per_sample(library: Library) -> None:
    t = torch.tensor([[0.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    ys = library.per_sample(Decay(), start(), t)
    expect(ys[:, -1].sum(1), [3 * LEFT, 2 * LEFT**2])


@EVENTS.probe("the time of an event")
def event(library: Library) -> None:
    time, _ = library.event(Decay(), start(), times()[0], lambda t, y: y.sum() - 3.0)
    expect(time, math.log(Y0_SUM / 3) / RATE)


@EVENTS.probe("the gradient of an event's time")
def event_gradient(library: Library) -> None:
    func = Decay()
    time, _ = library.event(func, start(), times()[0], lambda t, y: y.sum() - 3.0)
    time.backward()
    expect(func.rate.grad, -math.log(Y0_SUM / 3) / RATE**2)


@EVENTS.probe("the gradient of a parameter of the event function")
def event_parameter(library: Library) -> None:
    level = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    time, _ = library.event(Decay(), start(), times()[0], lambda t, y: y.sum() - level)
    time.backward()
    expect(level.grad, -1 / (RATE * 3))
