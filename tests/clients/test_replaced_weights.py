"""Weights are replaced between the passes without a version count: .data, vector_to_parameters, set_data."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))
        self.register_buffer("scale", torch.ones(3))

    def forward(self, t, y):
        return self.net(y * self.scale)


def by_data(field):
    for p in field.parameters():
        p.data = 0.5 * p.data


def by_a_vector(field):
    """Perturb all weights, as evolution strategies and line searches do."""
    vector_to_parameters(0.5 * parameters_to_vector(field.parameters()).detach(), field.parameters())


def by_a_swap_of_weights(field):
    """Averaged weights are swapped in for an evaluation, and not yet back."""
    other = Field()
    for p, q in zip(field.parameters(), other.parameters(), strict=True):
        p.data, q.data = 0.5 * q.data, p.data


def by_a_buffers_data(field):
    field.scale.data = 0.5 * field.scale.data


def by_another_buffer(field):
    field.scale = 0.5 * field.scale


def by_other_parameters(field):
    field.net[0].weight = nn.Parameter(0.5 * field.net[0].weight.detach())


KEPT = (by_another_buffer, by_other_parameters)
"""Changes of what a module holds, which is put back for the backward pass."""


@pytest.mark.parametrize(
    "change", [by_data, by_a_vector, by_a_swap_of_weights, by_a_buffers_data, by_another_buffer, by_other_parameters]
)
def test_the_gradient_is_that_of_the_solve_or_an_error(change, exact_solvers):
    """The truth is the gradient without a change. A wrong gradient is what no change may give."""

    def gradients(odeint, change):
        field, y0 = Field(), torch.linspace(-1.0, 1.0, 3).requires_grad_()
        own = list(field.parameters())
        y = odeint(field, y0, T)[-1]
        change(field)
        y.square().sum().backward()
        return {**{str(i): p.grad for i, p in enumerate(own)}, "y0": y0.grad}

    expected = gradients(exact_solvers.ours, lambda field: None)
    if exact_solvers.ours.keywords["gradient"] == "backprop":
        return  # plain autograd, which .data does get past
    if change in KEPT:
        got = gradients(exact_solvers.ours, change)
        assert max(relative_error(got[name], expected[name]) for name in got) < exact_solvers.bound
    else:
        with pytest.raises(sa.FunctionChanged, match="was changed"):
            gradients(exact_solvers.ours, change)


def test_swapped_there_and_back(exact_solvers):
    """Averaged weights are swapped in for an evaluation and out again: the memory is another, the values are not."""

    def train(odeint):
        field = Field()
        loss = odeint(field, torch.ones(3), T)[-1].square().sum()
        kept = [p.data.clone() for p in field.parameters()]
        by_data(field)
        with torch.no_grad():
            odeint(field, torch.ones(3), T)
        for p, data in zip(field.parameters(), kept, strict=True):
            p.data = data
        loss.backward()
        return gradients_of(field)

    exact_solvers.check(train)
