"""Tolerances and gradients that tests of defects share."""

import pytest
import torch

from tests.fields import weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness
LOOSE = {"rtol": 1e-4, "atol": 1e-4}
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
every_gradient = pytest.mark.parametrize("gradient", STANDARD)
exact_gradients = pytest.mark.parametrize("gradient", EXACT)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def vector(*values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def gradients(func, ys, *inputs):
    return torch.autograd.grad(weighted_loss(ys), [*inputs, *func.parameters()], allow_unused=True)


def agree(got, expected, bound=ROUNDING):
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound
