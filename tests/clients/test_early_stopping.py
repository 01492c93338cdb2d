"""Early stopping: a solve that ends when its state comes to rest, and training that keeps the best weights."""

import copy

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
# The event's time is found to rounding error of the dense output, and its gradient follows from it.
AT_AN_EVENT = 1e-9


class Diffusion(nn.Module):
    """Features on a ring that diffuse towards their neighbours and come to rest."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.rate = nn.Linear(2, 2), nn.Parameter(torch.tensor(1.5))

    def forward(self, t, x):
        neighbours = 0.5 * (x.roll(1, 0) + x.roll(-1, 0))
        return self.rate * (neighbours - x) - 0.5 * torch.tanh(self.mix(x))


def nodes():
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(1))


def test_a_solve_ends_when_the_state_is_at_rest(gradient):
    def train(name):
        field = Diffusion()
        end = torch.tensor([0.0, 20.0])

        def moving(t, x):
            return field(t, x).square().mean().sqrt() - 0.2

        t, xs = sa.odeint(field, nodes(), end, event_fn=moving, gradient=name, rtol=1e-6, atol=1e-6)
        assert 0.1 < t.item() < 19.0
        xs[-1].square().sum().backward()
        return gradients_of(field)

    got, expected = train(gradient), train("backprop")
    assert max(relative_error(got[name], expected[name]) for name in got) < AT_AN_EVENT


def test_a_solve_is_stopped_by_a_function_of_the_state(gradient):
    """As solver classes derived from torchdiffeq's do: the state is tested after each step."""

    def train(name):
        field = Diffusion()

        def at_rest(t, x):
            return field(t, x).square().mean().sqrt() < 0.2

        solution = sa.solve(
            field, nodes(), torch.tensor([0.0, 20.0]), options={"stop": at_rest}, gradient=name, rtol=1e-6, atol=1e-6
        )
        assert 0.1 < solution.stopped_t < 19.0 and solution.ys[-1].isnan().all()
        solution.stopped_y.square().sum().backward()
        return gradients_of(field)

    got, expected = train(gradient), train("backprop")
    assert max(relative_error(got[name], expected[name]) for name in got) < 1e-12  # as in test_exactness


def test_the_best_weights_are_restored_between_the_passes_of_a_run(solvers):
    """Validation each epoch, a deep copy of the best state, and load_state_dict at the end."""

    def train(odeint):
        field, x = Diffusion(), nodes()
        optimizer = torch.optim.SGD(field.parameters(), lr=0.5)
        best, best_loss = None, float("inf")
        for _ in range(4):
            optimizer.zero_grad()
            loss = (odeint(field, x, T)[-1] - 0.3).square().sum()
            loss.backward()
            if loss.item() < best_loss:
                best, best_loss = copy.deepcopy(field.state_dict()), loss.item()
            optimizer.step()
        field.load_state_dict(best)
        return {**gradients_of(field), "rate": field.rate, "best": torch.tensor(best_loss)}

    solvers.check(train)


def test_loading_weights_between_the_passes_is_an_error(solvers):
    """load_state_dict copies in place: autograd refuses it too."""

    def train(odeint):
        field, other = Diffusion(), Diffusion()
        loss = odeint(field, nodes(), T)[-1].square().sum()
        with torch.no_grad():
            other.rate.fill_(3.0)
        field.load_state_dict(other.state_dict())
        loss.backward()

    for odeint in (solvers.truth, solvers.ours):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            train(odeint)
