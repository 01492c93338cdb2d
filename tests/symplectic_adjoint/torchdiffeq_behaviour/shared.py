"""Methods that torchdiffeq and this library share, how accurate they are, and small fields to try them on."""

import math

import torch
from torch import nn

import symplectic_adjoint as sa

# Our names of the methods that both libraries have, and torchdiffeq's.
SHARED = {
    "euler": "euler",
    "midpoint": "midpoint",
    "heun2": "heun2",
    "heun3": "heun3",
    "rk38": "rk4",
    "fehlberg2": "fehlberg2",
    "adaptive_heun": "adaptive_heun",
    "bosh3": "bosh3",
    "dopri5": "dopri5",
    "dopri8": "dopri8",
}
SINGLE = (torch.float32, torch.complex64)
ADAPTIVE = [name for name in SHARED if sa.METHODS[name].adaptive]
FIXED = [name for name in SHARED if not sa.METHODS[name].adaptive]


def times(*values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def tolerance_of(method, dtype):
    """Return a tolerance within the precision of the state, loose where a tight one would need many steps."""
    if method == "fehlberg2":  # its error estimate, a difference of slopes over 512, is too small
        return 1e-5
    if sa.METHODS[method].order < 3:
        return 1e-3
    return 1e-4 if sa.METHODS[method].order == 3 or dtype in SINGLE else 1e-7


def stepping(method, dtype):
    """Return the keywords of a solve that is about as accurate as tolerance_of says."""
    if sa.METHODS[method].adaptive:
        tolerance = tolerance_of(method, dtype)
        return {"method": method, "rtol": tolerance, "atol": tolerance}
    return {"method": method, "options": {"step_size": 0.1}}


def error_bound(method, dtype):
    """Return a bound on the error of a solve over a unit of time with the keywords of `stepping`.

    An adaptive step errs by its tolerance, and tens of steps add up to some tens of tolerances at most. On a fixed
    grid the error is a constant below 2 times h^order.
    """
    if sa.METHODS[method].adaptive:
        return (1000 if method == "fehlberg2" else 100) * tolerance_of(method, dtype)
    return max(2 * 0.1 ** sa.METHODS[method].order, 1e-5 if dtype in SINGLE else 0.0)


def sine(t, y):
    """Return dy/dt of y(t) = y0 exp(sin t - sin t0)."""
    return torch.cos(t) * y


def initial(dtype):
    y0 = torch.tensor([0.6, -1.1], dtype=torch.float64)
    return (y0 * (1 + 0.5j) if dtype.is_complex else y0).to(dtype).requires_grad_()


class Swing(nn.Module):
    """A driven pendulum-like field for any shape of state; the parts of a tuple are coupled."""

    def forward(self, t, y):
        if isinstance(y, tuple):
            first, second = y
            return torch.cos(t) * first, -torch.sin(second) * first.abs().mean()
        return torch.cos(3.0 * t) * torch.sin(y) - 0.2 * y


def swing_start(kind, dtype):
    first, second = torch.linspace(-1.0, 1.3, 3).to(dtype), torch.linspace(0.5, 2.0, 4).reshape(2, 2).to(dtype)
    return first if kind == "tensor" else (first, second)


G = 9.81


class Falling(nn.Module):
    """A falling ball: its height and velocity, as one tensor or as a pair."""

    def __init__(self, g=G):
        super().__init__()
        self.g = nn.Parameter(torch.tensor(g, dtype=torch.float64))

    def forward(self, t, y):
        velocity = y[1]
        slopes = velocity, -self.g * torch.ones_like(velocity)
        return slopes if isinstance(y, tuple) else torch.stack(slopes)


def height(t, y):
    return y[0]


# The ball's path is a parabola, which methods of order 2 and more follow exactly, and so do cubic outputs. The event's
# time is bracketed to about atol. The continuous gradient solves the adjoint equation to its own tolerance.
EVENT = {"rtol": 1e-9, "atol": 1e-10}
EVENT_BOUND = 1e-6


def growth(t):
    """Return y(t) / y(0) of `sine`."""
    return math.exp(math.sin(t))
