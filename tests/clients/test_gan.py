"""A GAN whose generator is an ODE: one module owns both networks, whose optimizers take turns."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class GAN(nn.Module):
    """The generator's field is a method of the module that also owns the discriminator, with its spectral norm."""

    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.drift = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
        spectral_norm = nn.utils.parametrizations.spectral_norm
        self.discriminator = nn.Sequential(spectral_norm(nn.Linear(2, 6)), nn.ReLU(), spectral_norm(nn.Linear(6, 1)))

    def field(self, t, y):
        return self.drift(torch.cat([y, t.expand(len(y), 1)], 1))

    def generate(self, noise):
        return self.odeint(self.field, noise, T)[-1]


def draws(count):
    return torch.randn(count, 8, 2, generator=torch.Generator().manual_seed(1))


def test_the_discriminator_steps_before_the_generators_backward_pass(solvers):
    def train(odeint):
        gan = GAN(odeint)
        of_generator = torch.optim.Adam(gan.drift.parameters(), lr=0.01)
        of_discriminator = torch.optim.Adam(gan.discriminator.parameters(), lr=0.01)
        for noise, real in zip(draws(3), draws(6)[3:], strict=True):
            fake = gan.generate(noise)
            of_discriminator.zero_grad()
            (gan.discriminator(fake.detach()) - gan.discriminator(real)).mean().backward()
            of_discriminator.step()
            of_generator.zero_grad()
            (-gan.discriminator(fake).mean()).backward()
            of_generator.step()
        return {**gradients_of(gan.drift), "drift": gan.drift[0].weight, "critic": gan.discriminator[2].weight}

    solvers.check(train)


class NormalizedField(nn.Module):
    """Spectral norm inside the field: in training, each call makes an iteration on its buffers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))

    def forward(self, t, y):
        return torch.tanh(self.layer(y))


def test_spectral_norm_in_a_field_in_eval_mode(solvers):
    def train(odeint):
        field = NormalizedField().eval()
        odeint(field, draws(1)[0], T)[-1].square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_the_gradient_penalty(exact_solvers):
    """A penalty on the gradient with respect to the solve's output, then one on that to its input."""

    def train(odeint):
        gan, noise = GAN(odeint), draws(1)[0].requires_grad_()
        score = gan.discriminator.eval()(gan.generate(noise)).sum()
        (slope,) = torch.autograd.grad(score, noise, create_graph=True)
        (slope.norm(dim=1) - 1.0).square().mean().backward()
        return gradients_of(gan.drift)

    exact_solvers.check(train)
