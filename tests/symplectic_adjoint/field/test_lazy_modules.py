"""LazyLinear and the like: a call before the first solve gives them their shapes; then all is as usual."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
FIXED = {"options": {"step_size": 0.25}}


class Lazy(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        self.inner, self.outer = nn.LazyLinear(8, dtype=torch.float64), nn.LazyLinear(3, dtype=torch.float64)
        self.norm = nn.LazyBatchNorm1d(dtype=torch.float64) if norm else nn.Identity()
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.outer(torch.tanh(self.norm(self.inner(y)) * torch.cos(t)))


class LazyConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.LazyConv1d(4, 1, dtype=torch.float64)

    def forward(self, t, y):
        return self.conv(y[None])[0].tanh()


def gradients(make, func_of=lambda net: net, solve=sa.odeint, **keywords):
    torch.manual_seed(1)
    net, y0 = make(), start().requires_grad_()
    ys = solve(func_of(net), y0, T, **keywords)
    weighted_loss(ys).backward()
    return net, [ys.detach(), y0.grad, *(p.grad for p in net.parameters())]


def materialised(make):
    def made():
        net = make()
        with torch.no_grad():
            net(T[0], start())
        return net

    return made


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a is not None and torch.equal(a, b)


@pytest.mark.parametrize("make", [Lazy, LazyConv])
@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_every_gradient_is_that_of_a_module_with_shapes(gradient, make):
    keywords = {"gradient": gradient, **FIXED, **({} if gradient == "mali" else {"method": "rk4"})}
    assert_same(gradients(make, **keywords)[1], gradients(materialised(make), **keywords)[1])


@pytest.mark.parametrize(
    ("func_of", "params"),
    [
        (lambda net: net.forward, lambda net: None),
        (lambda net: lambda t, y: net(t, y), lambda net: net),
        (lambda net: lambda t, y, hidden=(net,): hidden[0](t, y), lambda net: net.parameters()),
        (lambda net: nn.ModuleList([net])[0], lambda net: None),
    ],
    ids=["method", "function", "hidden module", "same module"],
)
def test_wherever_the_module_is(func_of, params):
    def solve(func, y0, t):
        return sa.odeint(func, y0, t, params=given(), rtol=1e-5, atol=1e-7)

    nets = []

    def given():
        return params(nets[-1])

    def kept(net):
        nets.append(net)
        return func_of(net)

    assert_same(gradients(Lazy, kept, solve)[1], gradients(materialised(Lazy), kept, solve)[1])


def test_a_structured_state():
    def solve(func, y0, t):
        return sa.odeint(Pair(func), (y0, y0[0]), t, rtol=1e-5, atol=1e-7)[0]

    class Pair(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, t, state):
            return self.net(t, state[0]), -state[1]

    assert_same(gradients(Lazy, solve=solve)[1], gradients(materialised(Lazy), solve=solve)[1])


def test_the_call_is_counted_and_made_once():
    func = Lazy()
    first, second = (sa.solve(func, start(), T, method="euler").stats.f_calls_forward for _ in range(2))
    assert (first, second, func.calls) == (3, 2, 5)


def test_batch_norm_counts_the_call_too():
    net, _ = gradients(lambda: Lazy(norm=True), method="euler")
    plain, _ = gradients(materialised(lambda: Lazy(norm=True)), method="euler")
    assert torch.equal(net.norm.running_mean, plain.norm.running_mean)
    assert net.norm.num_batches_tracked == plain.norm.num_batches_tracked


def test_dense_solutions_and_diagnostics():
    assert sa.odeint_dense(Lazy(), start(), 0.0, 1.0)(0.5).shape == (4, 3)
    assert sa.check_gradient(Lazy(), start(), T).ok
