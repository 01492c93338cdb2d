"""Fields that are zero at the start: the exact gradient of too few steps, which check_gradient finds."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


class Residual(nn.Module):
    """Sinusoidal time features and a last layer that starts at zero, as residual networks are initialised."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, t, y):
        return self.last(torch.stack([torch.sin(20.0 * t), torch.cos(20.0 * t)])).expand_as(y)


class Thresholded(nn.Module):
    """A coefficient that a threshold has set to zero."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.zeros(2))

    def forward(self, t, y):
        return self.c[0] * torch.sin(20.0 * t) + self.c[1] * torch.cos(20.0 * t) + torch.zeros_like(y)


@pytest.mark.parametrize("field", [Residual, Thresholded])
def test_check_gradient_finds_the_steps_too_long(field):
    check = sa.check_gradient(field(), torch.ones(3, 2), T, **TIGHT)
    assert not check.ok
    assert "max_step" in str(check) or "first_step" in str(check)


@pytest.mark.parametrize("field", [Residual, Thresholded])
def test_bounded_steps_give_the_gradient_of_the_ode(field):
    check = sa.check_gradient(field(), torch.ones(3, 2), T, options={"max_step": 0.01}, **TIGHT)
    assert check.ok, str(check)
