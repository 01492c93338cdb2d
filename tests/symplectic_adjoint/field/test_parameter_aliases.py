"""The parameter aliases of a reverse sweep: func may use its parameters freely, and no trace is left."""

import threading

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
FIXED = {"method": "rk4", "options": {"step_size": 0.25}}
SWEEPS = ("symplectic", "stages", "aca", "baseline")
EQUAL = {"rtol": 1e-12, "atol": 1e-14}  # the same sums in another order, in float64


def gradients(func, gradient, params=None, leaves=None):
    y0 = start().requires_grad_()
    leaves = tuple(func.parameters()) if leaves is None else leaves
    ys = sa.odeint(func, y0, T, gradient=gradient, params=params, **FIXED)
    return torch.autograd.grad(weighted_loss(ys), (y0, *leaves), allow_unused=True)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EQUAL)


class Labelled(nn.Module):
    """Reads an attribute of its parameter, and checks that it is an nn.Parameter."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
        self.rate.sign = -1.0

    def forward(self, t, y):
        assert isinstance(self.rate, nn.Parameter)
        return self.rate.sign * self.rate * y


class Tied(nn.Module):
    """One parameter in two places."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3, dtype=torch.float64)
        self.outer = nn.Linear(3, 3, dtype=torch.float64)
        self.outer.weight = self.inner.weight

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y)))


class Viewed(nn.Module):
    """Each part of its gradient is a view of the cotangent, the state's too."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.full((4, 3), 0.3, dtype=torch.float64))
        self.q = nn.Parameter(torch.full((4, 3), 0.7, dtype=torch.float64))

    def forward(self, t, y):
        return (y.view(-1) + self.p.view(-1) + self.q.view(-1)).view(4, 3)


class Listed(nn.Module):
    """Keeps its parameter in a list besides, as recurrent layers do, and uses it from there always, or now and then."""

    def __init__(self, when):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
        self.all = [self.rate]
        self.when = when

    def forward(self, t, y):
        return -(self.all[0] * y).sin() if self.when(t) else -self.rate * y


@pytest.mark.parametrize("gradient", SWEEPS)
@pytest.mark.parametrize(
    "make",
    [
        Labelled,
        Tied,
        Viewed,
        lambda: Listed(lambda t: True),
        lambda: Listed(lambda t: t < 0.5),
        lambda: Listed(lambda t: t > 0.5),
    ],
    ids=["labelled", "tied", "viewed", "listed", "listed early", "listed late"],
)
def test_however_func_reaches_its_parameters_the_gradient_is_the_same(make, gradient):
    func = make()
    assert_same(gradients(func, gradient), gradients(func, "backprop"))


class Alternating(nn.Module):
    """Reaches its parameter as an attribute or by its list, with as many operations either way."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64))
        self.all = [self.rate]

    def forward(self, t, y):
        return -(self.all[0] if t < 0.5 else self.rate) * y


@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca"])
def test_a_parameter_reached_in_two_ways_is_never_lost(gradient):
    with pytest.raises(sa.LostGradient, match="some calls"):
        gradients(Alternating(), gradient)
    assert_same(gradients(Alternating(), "baseline"), gradients(Alternating(), "backprop"))


@pytest.mark.parametrize("gradient", SWEEPS)
def test_a_parameter_that_only_a_closure_knows_and_one_of_a_module(gradient):
    net, rate = SmallNet(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return self.net(t, y) - rate * y

    leaves = (*net.parameters(), rate)
    got = gradients(Sum(), gradient, params=(rate,), leaves=leaves)
    assert_same(got, gradients(Sum(), "backprop", params=(rate,), leaves=leaves))


class Stubborn(nn.Module):
    """Fails at its n-th call."""

    def __init__(self):
        super().__init__()
        self.net, self.calls_left = SmallNet(), torch.tensor(1000)  # changed in place: an attribute would be put back

    def forward(self, t, y):
        self.calls_left -= 1
        if self.calls_left == 0:
            raise ZeroDivisionError
        return self.net(t, y)


@pytest.mark.parametrize("gradient", SWEEPS)
def test_parameters_are_back_in_place_after_a_sweep_that_failed(gradient):
    func = Stubborn()
    before = dict(func.named_parameters())
    ys = sa.odeint(func, start().requires_grad_(), T, gradient=gradient, **FIXED)
    func.calls_left.fill_(5)
    with pytest.raises(ZeroDivisionError):
        weighted_loss(ys).backward()
    after = dict(func.named_parameters())
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)
    assert all(p.grad is None for p in before.values())


@pytest.mark.parametrize("gradient", SWEEPS)
def test_no_hook_sees_a_part_of_the_gradient(gradient):
    func, seen, stepped = SmallNet(), [], []
    func.twice.register_hook(lambda grad: seen.append(grad.clone()))
    func.twice.register_post_accumulate_grad_hook(lambda p: stepped.append(p.grad.clone()))
    weighted_loss(sa.odeint(func, start(), T, gradient=gradient, **FIXED)).backward()
    assert len(seen) == len(stepped) == 1
    assert torch.equal(seen[0], func.twice.grad) and torch.equal(stepped[0], func.twice.grad)


def test_two_threads_may_train_one_module():
    func, failures = SmallNet(), []
    expected, leaves = gradients(func, "backprop"), tuple(func.parameters())

    def train():
        try:
            for _ in range(10):
                assert_same(gradients(func, "symplectic", leaves=leaves), expected)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


class Wrapped(nn.Module):
    """Solves with a function that names its network."""

    def __init__(self, gradient):
        super().__init__()
        self.net, self.gradient = SmallNet(), gradient

    def forward(self, y0):
        net = self.net
        params = tuple(net.parameters())
        return sa.odeint(lambda t, y: net(t, y), y0, T, gradient=self.gradient, params=params, **FIXED)


@pytest.mark.parametrize("gradient", [*SWEEPS, "backprop"])
def test_a_closure_sees_the_weights_of_its_solve_in_the_backward_pass(gradient):
    """They were there for the time of the call only, as a hypernetwork's are."""
    model, expected = Wrapped(gradient), Wrapped("backprop")
    z = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def of(model):
        y0 = start().requires_grad_()
        weights = {name: z * p.detach() for name, p in model.named_parameters()}
        ys = torch.func.functional_call(model, weights, (y0,))
        return torch.autograd.grad(weighted_loss(ys), (y0, z))

    expected.load_state_dict(model.state_dict())
    assert_same(of(model), of(expected))


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(3, dtype=torch.float64), SmallNet()
        self.norm.running_var.fill_(2.0)

    def forward(self, t, y):
        return self.net(t, self.norm(y))


@pytest.mark.parametrize("gradient", SWEEPS)
def test_a_closure_sees_the_mode_of_its_solve_in_the_backward_pass(gradient):
    def of(gradient):
        net, y0 = Normalized().eval(), start().requires_grad_()
        ys = sa.odeint(lambda t, y: net(t, y), y0, T, gradient=gradient, params=tuple(net.parameters()), **FIXED)
        net.train()
        return torch.autograd.grad(weighted_loss(ys), (y0, *net.parameters()), allow_unused=True)

    assert_same(of(gradient), of("backprop"))
