"""flow_matching: samples and likelihoods by its ODESolver, with gradients."""

import pytest
import torch
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper
from torch import nn

from tests.clients.gradients import gradients_of

# Its default is in float32, in which torchdiffeq rounds the times of stages, at thirds of a step; here they are exact.
TIMES = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Velocity(ModelWrapper):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 2)))

    def forward(self, x, t, **extras):
        return self.model(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1)) * extras.get("scale", 1.0)


def noise():
    return torch.randn(4, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun3", "rk4"])
def test_a_sample_with_a_gradient(compare, method):
    def client():
        velocity, x, scale = Velocity(), noise(), torch.tensor(1.5, requires_grad=True)
        sample = ODESolver(velocity_model=velocity).sample(
            x_init=x, step_size=0.25, method=method, time_grid=TIMES, enable_grad=True, scale=scale
        )
        sample.square().sum().backward()
        return gradients_of(velocity, x=x, scale=scale)

    compare(client, client)


@pytest.mark.parametrize("exact", [True, False])
def test_a_likelihood_with_a_gradient(compare, exact):
    """Its dynamics return detached values: the gradient for x is that of the last density alone, in both libraries."""

    def client():
        velocity, x = Velocity(), noise()
        torch.manual_seed(3)  # of Hutchinson's noise
        source, log_p = ODESolver(velocity_model=velocity).compute_likelihood(
            x_1=x, log_p0=lambda z: -0.5 * z.square().sum(1), step_size=0.25, method="midpoint",
            exact_divergence=exact, enable_grad=True,
        )  # fmt: skip
        log_p.sum().backward()
        return {"x": x.grad, "log_p": log_p, "source": source}

    compare(client, client)


@pytest.mark.parametrize("method", ["dopri5", "euler"])
def test_intermediate_samples(compare, method):
    def client():
        velocity, grid = Velocity(), torch.linspace(0.0, 1.0, 5)
        samples = ODESolver(velocity_model=velocity).sample(
            x_init=noise(), step_size=None, method=method, time_grid=grid, return_intermediates=True, enable_grad=True
        )
        samples.square().sum().backward()
        return {"samples": samples, **gradients_of(velocity)}

    compare(client, client, 1e-3 if method == "dopri5" else 1e-12)  # its tolerances are 1e-5; or the same steps
