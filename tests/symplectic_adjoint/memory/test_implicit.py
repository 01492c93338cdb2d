"""The memory of implicit methods without a Jacobian: that of explicit ones, and the vectors of a Krylov space."""

import torch
from torch import nn

from symplectic_adjoint import METHODS, measure_memory
from symplectic_adjoint.field.linear_systems import FEW_ROWS

KRYLOV = 40 + FEW_ROWS
"""The vectors of a Krylov space, and those that were there before it grew."""
GRAPHS = 3
"""A product with J is taken from the graph of f and of its VJP, which is as large again, and has temporaries of f."""
TEMPORARIES = 12
"""States at one time beside those: the iterate, its correction and residual, a guess, cotangents, terms of f."""


class Diffusion(nn.Module):
    """A reaction on a ring of points: its graph holds two states."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t, y):
        return 4.0 * (torch.roll(y, 1) - 2.0 * y + torch.roll(y, -1)) + self.rate * y * (1.0 - y * y)


def peak_in_states(steps, method, gradient):
    y0 = torch.linspace(-1.0, 1.0, 1024, dtype=torch.float64).sin()
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"step_size": 1.0 / steps, "linear": "gmres"}
    found = measure_memory(Diffusion(), y0, t, method=method, gradient=gradient, options=options)
    return found.peak_tensor_bytes / (y0.numel() * 8)


def test_a_step_more_keeps_a_state_more():
    few, many = (peak_in_states(steps, "trbdf2", "symplectic") for steps in (5, 15))
    assert 9.9 <= many - few <= 10.1
    assert few <= 5 + METHODS["trbdf2"].stages + KRYLOV + GRAPHS * 2 + TEMPORARIES


def test_stages_keep_all_stages():
    few, many = (peak_in_states(steps, "kvaerno3", "stages") for steps in (5, 15))
    assert many - few > 10.0 * METHODS["kvaerno3"].stages
