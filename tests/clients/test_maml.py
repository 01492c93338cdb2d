"""Model-agnostic meta-learning: the inner steps are differentiated, so the solve is differentiated twice."""

import torch
from torch import nn
from torch.func import functional_call

T = torch.linspace(0.0, 0.5, 3, dtype=torch.float64)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, t, y):
        return self.net(y)


def tasks(count=2):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 2, generator=generator), torch.randn(4, 2, generator=generator)) for _ in range(count)]


def adapted(odeint, field, parameters, y0, target, inner_steps=2):
    """Return the parameters after some steps of gradient descent, on the graph of the given ones."""
    for _ in range(inner_steps):
        y = odeint(lambda t, y: functional_call(field, parameters, (t, y)), y0, T)[-1]  # noqa: B023
        loss = (y - target).square().mean()
        slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        parameters = {name: p - 0.1 * g for (name, p), g in zip(parameters.items(), slopes, strict=True)}
    return parameters


def test_the_meta_gradient_through_functional_parameters(exact_solvers):
    def train(odeint):
        field = Field()
        meta = dict(field.named_parameters())
        loss = torch.zeros(())
        for y0, target in tasks():
            own = adapted(odeint, field, meta, y0, target)
            y = odeint(lambda t, y: functional_call(field, own, (t, y)), y0, T)[-1]  # noqa: B023
            loss = loss + (y - target).square().mean()
        gradients = torch.autograd.grad(loss, list(meta.values()))
        return dict(zip(meta, gradients, strict=True))

    exact_solvers.check(train)


def test_the_meta_gradient_of_a_learned_step_size(exact_solvers):
    """One tensor outside func's own parameters, on which the inner parameters depend."""

    def train(odeint):
        field, rate = Field(), torch.tensor(0.1, requires_grad=True)
        y0, target = tasks(1)[0]
        parameters = dict(field.named_parameters())
        loss = (odeint(field, y0, T)[-1] - target).square().mean()
        slopes = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        own = {name: p - rate * g for (name, p), g in zip(parameters.items(), slopes, strict=True)}
        y = odeint(lambda t, y: functional_call(field, own, (t, y)), y0, T)[-1]
        (y - target).square().mean().backward()
        return {"rate": rate.grad, **{name: p.grad for name, p in parameters.items()}}

    exact_solvers.check(train)
