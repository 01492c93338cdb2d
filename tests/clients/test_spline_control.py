"""A neural controlled differential equation: y' = f(y) X'(t), with X a cubic spline that the vector field holds."""

import torch
from torch import nn

from tests.clients.gradients import gradients_of

KNOTS = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


def spline_coefficients(x):
    """Return the natural cubic spline's slopes and knots' values for a path x of shape (batch, knots, channels)."""
    n, h = x.shape[1], KNOTS[1] - KNOTS[0]
    system = torch.diag(torch.full((n,), 4.0)) + torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    system[0, 0] = system[-1, -1] = 2.0
    right = torch.cat([x[:, 1:2] - x[:, :1], x[:, 2:] - x[:, :-2], x[:, -1:] - x[:, -2:-1]], 1) * 3.0 / h
    return x, torch.linalg.solve(system, right)


class Spline:
    """A plain object, not a module: its coefficients are attributes that require a gradient."""

    def __init__(self, coefficients):
        self.values, self.slopes = coefficients

    def derivative(self, t):
        return spline_derivative(self.values, self.slopes, t)


class SplineModule(nn.Module):
    """A module whose coefficients are buffers, not parameters."""

    def __init__(self, coefficients):
        super().__init__()
        self.register_buffer("values", coefficients[0])
        self.register_buffer("slopes", coefficients[1])

    def derivative(self, t):
        return spline_derivative(self.values, self.slopes, t)


def spline_derivative(values, slopes, t):
    h = KNOTS[1] - KNOTS[0]
    i = int(torch.bucketize(t.detach(), KNOTS).sub(1).clamp(0, len(KNOTS) - 2))
    s, jump = (t - KNOTS[i]) / h, (values[:, i + 1] - values[:, i]) / h
    return slopes[:, i] * (1 - s) * (1 - 3 * s) + slopes[:, i + 1] * s * (3 * s - 2) + 6 * jump * s * (1 - s)


class VectorField(nn.Module):
    """torchcde's way: the control and the network are attributes of a module made for each solve."""

    def __init__(self, control, net):
        super().__init__()
        self.control, self.net = control, net

    def forward(self, t, z):
        return (self.net(z).tanh().view(len(z), 4, 2) @ self.control.derivative(t).unsqueeze(-1)).squeeze(-1)


class CDE(nn.Module):
    def __init__(self, odeint, make_control):
        super().__init__()
        torch.manual_seed(0)
        self.odeint, self.make_control = odeint, make_control
        self.encoder, self.start = nn.Linear(3, 2), nn.Linear(2, 4)
        self.net, self.head = nn.Linear(4, 8), nn.Linear(4, 1)

    def forward(self, x):
        path = self.encoder(x)
        control = self.make_control(spline_coefficients(path))
        zs = self.odeint(VectorField(control, self.net), self.start(path[:, 0]), KNOTS)
        return self.head(zs[-1])


def data(requires_grad=False):
    return torch.randn(3, len(KNOTS), 3, generator=torch.Generator().manual_seed(1)).requires_grad_(requires_grad)


def trained(make_control):
    def train(odeint):
        model, x = CDE(odeint, make_control), data(requires_grad=True)
        model(x).square().sum().backward()
        return gradients_of(model, x=x)

    return train


def test_a_spline_as_a_plain_object(solvers):
    solvers.check(trained(Spline))


def test_a_spline_as_a_module_with_buffers(solvers):
    solvers.check(trained(SplineModule))


def test_a_spline_as_a_closure(solvers):
    class Closed(CDE):
        def forward(self, x):
            path = self.encoder(x)
            spline = Spline(spline_coefficients(path))

            def f(t, z):
                slope = spline.derivative(t).unsqueeze(-1)
                return (self.net(z).tanh().view(len(z), 4, 2) @ slope).squeeze(-1)

            return self.head(self.odeint(f, self.start(path[:, 0]), KNOTS)[-1])

    def train(odeint):
        model = Closed(odeint, None)
        model(data()).square().sum().backward()
        return gradients_of(model)

    solvers.check(train)


def test_two_paths_with_one_vector_field(solvers):
    """The control is replaced between two solves that share one backward pass."""

    def train(odeint):
        model = CDE(odeint, Spline)
        field = VectorField(None, model.net)
        loss = torch.zeros(())
        for x in (data(), -data()):
            path = model.encoder(x)
            field.control = SplineModule(spline_coefficients(path))
            loss = loss + odeint(field, model.start(path[:, 0]), KNOTS)[-1].square().sum()
        loss.backward()
        return gradients_of(model)

    solvers.check(train)
