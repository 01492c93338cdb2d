"""Containers and dtypes of the state."""

from typing import Any

import torch
from torch import nn

from symplectic_bench.features.answer import Wrong, expect
from symplectic_bench.features.library import Library
from symplectic_bench.features.probe import Family
from symplectic_bench.features.probes.decay import END_SUM, LEFT, RATE, Y0_SUM, Decay, start, times

STATES = Family("States and precision")


class Parts(Decay):
    """A state of two parts, each of which decays."""

    def forward(self, t: Any, y: Any) -> Any:
        if isinstance(y, dict):
            return {name: -self.rate * part for name, part in y.items()}
        return tuple(-self.rate * part for part in y)


@STATES.probe("a tuple")
def tuple_state(library: Library) -> None:
    func, y0 = Parts(), (start(), start()[0])
    ys = library.solve(func, y0, times())
    (ys[0][-1].sum() + ys[1][-1].sum()).backward()
    expect(func.rate.grad, -(Y0_SUM + 3) * LEFT)


@STATES.probe("a dict")
def dict_state(library: Library) -> None:
    func = Parts()
    ys = library.solve(func, {"a": start(), "b": start()[0]}, times())
    (ys["a"][-1].sum() + ys["b"][-1].sum()).backward()
    expect(func.rate.grad, -(Y0_SUM + 3) * LEFT)


@STATES.probe("a scalar (no dimensions)")
def scalar(library: Library) -> None:
    func = Decay()
    library.solve(func, torch.tensor(2.0, dtype=torch.float64), times())[-1].backward()
    expect(func.rate.grad, -2 * LEFT)


class Rotation(Decay):
    """dy/dt = i rate y."""

    def forward(self, t, y):
        return 1j * self.rate * y


TURNED = torch.tensor([[1.0 + 1.0j]], dtype=torch.complex128)


@STATES.probe("complex")
def complex_state(library: Library) -> None:
    expect(library.solve(Rotation(), TURNED, times())[-1], TURNED * torch.exp(torch.tensor(1j * RATE)))


@STATES.probe("complex, with the gradient")
def complex_gradient(library: Library) -> None:
    func = Rotation()
    library.solve(func, TURNED, times())[-1].real.sum().backward()
    expect(func.rate.grad, -torch.sin(torch.tensor(RATE)) - torch.cos(torch.tensor(RATE)))


@STATES.probe("float32, with times in float64 that float32 cannot hold")
def float32_state(library: Library) -> None:
    func, y0 = Decay(torch.float32), start(torch.float32)
    library.solve(func, y0, times(1e8, 1e8 + 1), rtol=1e-5, atol=1e-6)[-1].sum().backward()
    expect(func.rate.grad, -END_SUM)


@STATES.probe("bfloat16, to 3 %")
def bfloat16_state(library: Library) -> None:
    func, y0 = Decay(torch.bfloat16), start(torch.bfloat16)
    library.solve(func, y0, times(), rtol=1e-2, atol=1e-2)[-1].sum().backward()
    expect(func.rate.grad, -END_SUM, 3e-2)


@STATES.probe("autocast around the forward pass, in force in the backward pass too")
def autocast(library: Library) -> None:
    seen = set()

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, t, y):
            out = self.linear(y)
            seen.add(out.dtype)
            return out.to(y.dtype)

    func = Mixed()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ys = library.solve(func, start(torch.float32), times().float(), rtol=1e-2, atol=1e-2)
    ys[-1].sum().backward()
    if seen != {torch.bfloat16}:
        raise Wrong("calls in another precision")
    if func.linear.weight.grad is None:
        raise Wrong("None without an error")
