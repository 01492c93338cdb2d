"""zuko, and lampe on top of it: continuous flows, with torchdiffeq's odeint in the place of zuko's own."""

import pytest
import torch
import torchdiffeq  # the name that replace_torchdiffeq(rebind=True) sets
import zuko
from lampe.inference import NPE, NPELoss
from torch import nn

from tests.clients.gradients import gradients_of


@pytest.fixture(autouse=True)
def _through_torchdiffeq(monkeypatch):
    def odeint(f, x, t0, t1, phi=(), atol=1e-6, rtol=1e-5):
        t = torch.stack([torch.as_tensor(time).double() for time in (t0, t1)])
        t = t[0] + (t[1] - t[0]) * torch.linspace(0.0, 1.0, 5)
        if isinstance(x, torch.Tensor):
            return torchdiffeq.odeint(f, x, t, method="rk4")[-1]
        return [part[-1] for part in torchdiffeq.odeint(lambda t, parts: f(t, *parts), tuple(x), t, method="rk4")]

    monkeypatch.setattr(zuko.transforms, "odeint", odeint)


@pytest.mark.parametrize("exact", [True, False])
def test_the_likelihood_of_a_continuous_flow(compare, exact):
    def client():
        torch.manual_seed(0)
        flow = zuko.flows.CNF(features=3, context=2, hidden_features=(8,), exact=exact)
        x, c = torch.randn(4, 3), torch.randn(4, 2, requires_grad=True)
        torch.manual_seed(1)  # of the trace's noise
        flow(c).log_prob(x).mean().neg().backward()
        return gradients_of(flow, c=c)

    compare(client, client)


def test_a_sample_with_a_gradient(compare):
    def client():
        torch.manual_seed(0)
        flow = zuko.flows.CNF(features=3, hidden_features=(8,))
        flow().rsample((4,)).square().mean().backward()
        return gradients_of(flow)

    compare(client, client)


def test_posterior_estimation_by_lampe(compare):
    def client():
        torch.manual_seed(0)
        embedding = nn.Linear(5, 4)
        estimator = NPE(3, 4, build=zuko.flows.CNF, hidden_features=(8,))
        loss = NPELoss(estimator)
        optimizer = torch.optim.Adam([*estimator.parameters(), *embedding.parameters()], lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            loss(torch.randn(6, 3), embedding(torch.randn(6, 5))).backward()
            optimizer.step()
        return gradients_of(estimator, embedding)

    compare(client, client)
