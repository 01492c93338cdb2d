"""Flow matching: a field that is (x1 - x) / (1 - t) in disguise, likelihoods by Hutchinson's estimator, sampling."""

from functools import partial

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of

ALMOST_ONE = 1.0 - 1e-3
BACKWARDS = torch.linspace(ALMOST_ONE, 0.0, 6, dtype=torch.float64)


class TargetPrediction(nn.Module):
    """The network predicts the target; the velocity towards it is singular at t = 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2))

    def forward(self, t, x):
        target = self.net(torch.cat([x, t.expand(len(x), 1)], 1))
        return (target - x) / (1.0 - t)


def log_likelihood(odeint, velocity, x1):
    """Estimate as sampling libraries do, in nested functions: noise drawn once, one vector-Jacobian product a call."""
    noise = (torch.randn(x1.shape, generator=torch.Generator().manual_seed(2)) > 0) * 2.0 - 1.0

    def dynamics(t, states):
        x = states[0]
        with torch.set_grad_enabled(True):
            x.requires_grad_()
            u = velocity(t, x)
            (pulled,) = torch.autograd.grad((u * noise).sum(), x, create_graph=True)
        return u, (pulled * noise).sum(1)

    x, change = odeint(dynamics, (x1, torch.zeros(len(x1))), BACKWARDS)
    return torch.distributions.Normal(0.0, 1.0).log_prob(x[-1]).sum(1) + change[-1]


def samples():
    return torch.randn(5, 2, generator=torch.Generator().manual_seed(1))


def test_the_likelihood_trains_the_velocity(solvers):
    def train(odeint):
        velocity = TargetPrediction()
        (-log_likelihood(odeint, velocity, samples()).mean()).backward()
        return gradients_of(velocity)

    solvers.check(train)


def test_guidance_differentiates_a_sample(solvers):
    """Through the solve to the noise that it started from, with classifier-free guidance in a closure."""

    def train(odeint):
        velocity = TargetPrediction().requires_grad_(False)
        noise, scale = samples().requires_grad_(), torch.tensor(1.5, requires_grad=True)

        def guided(t, x):
            return velocity(t, x) * scale + (1.0 - scale) * velocity(t, torch.zeros_like(x))

        # Not at the end, where samples depend on the noise by 1e-5 only: rtol 1e-7 is then an error of 1e-3.
        odeint(guided, noise, BACKWARDS.flip(0))[3].square().sum().backward()
        return {"noise": noise.grad, "scale": scale.grad}

    solvers.check(train)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_a_solve_up_to_the_singularity_ends_in_an_error(gradient, method, dtype):
    velocity, calls = TargetPrediction().to(dtype), []

    def counted(t, x):
        calls.append(1)
        return velocity(t, x)

    with pytest.raises(sa.SolverError):
        sa.odeint(counted, samples().to(dtype), torch.tensor([0.0, 1.0]), gradient=gradient, method=method)
    assert len(calls) < 3000  # the steps shrink by ten towards the singularity: some hundred, seven calls each


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2"])
def test_a_fixed_grid_that_does_not_call_func_at_the_singularity(gradient, method):
    """Euler's and the midpoint rule never evaluate t = 1; Heun's rule does, and says so."""
    solve = partial(sa.odeint, TargetPrediction(), samples(), torch.linspace(0.0, 1.0, 5), gradient=gradient)
    if method == "heun2":
        with pytest.raises(sa.NonFiniteError):
            solve(method=method)
    else:
        assert solve(method=method)[-1].isfinite().all()
