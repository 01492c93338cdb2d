"""torchcfm: a conditional flow matcher trained, then sampled by odeint as its examples do."""

import numpy
import pytest
import torch
import torchcfm
import torchdiffeq  # the name that replace_torchdiffeq(rebind=True) sets
from torch import nn
from torchcfm.models import MLP

from tests.clients.gradients import gradients_of

MATCHERS = ["ConditionalFlowMatcher", "TargetConditionalFlowMatcher", "ExactOptimalTransportConditionalFlowMatcher"]


@pytest.mark.parametrize("matcher", MATCHERS)
def test_training_and_sampling(compare, matcher):
    def client():
        torch.manual_seed(0)
        numpy.random.seed(0)  # of the optimal transport's samples
        model, flow = MLP(dim=2, w=8, time_varying=True).double(), getattr(torchcfm, matcher)(sigma=0.1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(3):
            t, x, u = flow.sample_location_and_conditional_flow(torch.randn(8, 2), torch.randn(8, 2) + 2.0)
            optimizer.zero_grad()
            (model(torch.cat([x, t[:, None].double()], 1)) - u).square().mean().backward()
            optimizer.step()
        optimizer.zero_grad()
        x0 = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        samples = torchdiffeq.odeint(
            lambda t, x: model(torch.cat([x, t.expand(len(x), 1)], 1)), x0, torch.linspace(0.0, 1.0, 5), method="euler"
        )
        samples[-1].square().sum().backward()
        return {"samples": samples, **gradients_of(model, x0=x0)}

    compare(client, client)


def test_a_wrapped_model_of_torchdyn(compare):
    """Its examples give torchdyn's NeuralODE a torch_wrapper of the model; here odeint gets the wrapper."""
    from torchcfm.utils import torch_wrapper

    class Field(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.wrapped = torch_wrapper(model)

        def forward(self, t, x):
            return self.wrapped(t, x)

    def client():
        torch.manual_seed(0)
        model = MLP(dim=2, w=8, time_varying=True).double()
        ys = torchdiffeq.odeint_adjoint(Field(model), torch.ones(4, 2), torch.linspace(0.0, 1.0, 5), method="rk4")
        ys[-1].square().sum().backward()
        return {"ys": ys, **gradients_of(model)}

    def truth():
        torch.manual_seed(0)
        model = MLP(dim=2, w=8, time_varying=True).double()
        ys = torchdiffeq.odeint(Field(model), torch.ones(4, 2), torch.linspace(0.0, 1.0, 5), method="rk4")
        ys[-1].square().sum().backward()
        return {"ys": ys, **gradients_of(model)}

    compare(client, truth)
