"""TorchScript in func: scripted and traced modules, submodules and functions give the gradient of plain ones."""

import io

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
FIXED = {"options": {"step_size": 0.25}}
EQUAL = {"rtol": 1e-12, "atol": 1e-13}  # TorchScript rearranges operations, in float64
pytestmark = [pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(3, 8, dtype=torch.float64), nn.Linear(8, 3, dtype=torch.float64)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 3, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(y) * torch.cos(t))) * self.scale - 0.1 * self.scale * y + self.shift


class Around(nn.Module):
    """A module of which only a part is TorchScript."""

    def __init__(self, net):
        super().__init__()
        self.net, self.rate = net, nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, t, y):
        return self.net(t, y) - self.rate * y


def decay(y: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    return -rate * y.tanh()


class WithFunction(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.net, self.function = Net(), function

    def forward(self, t, y):
        return self.net(t, y) + self.function(y, self.net.scale)


def traced(net):
    return torch.jit.trace(net, (T[0], start()))


def loaded(net):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    return torch.jit.load(file)


KINDS = {
    "scripted": lambda: (torch.jit.script(Net()), Net()),
    "traced": lambda: (traced(Net()), Net()),
    "saved and loaded": lambda: (loaded(Net()), Net()),
    "scripted part": lambda: (Around(torch.jit.script(Net())), Around(Net())),
    "traced part": lambda: (Around(traced(Net())), Around(Net())),
    "scripted function": lambda: (WithFunction(torch.jit.script(decay)), WithFunction(decay)),
    "traced function": lambda: (WithFunction(torch.jit.trace(decay, (start(), start()[0]))), WithFunction(decay)),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def gradients(func, **keywords):
    y0, t = start().requires_grad_(), T.clone().requires_grad_()
    ys = sa.odeint(func, y0, t, **keywords)
    return [ys.detach(), *torch.autograd.grad(weighted_loss(ys), (y0, t, *func.parameters()), allow_unused=True)]


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EQUAL)


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
@each_kind
def test_every_gradient_is_that_of_the_plain_module(kind, gradient):
    scripted, plain = kind()
    keywords = {"gradient": gradient, **FIXED, **({} if gradient == "mali" else {"method": "rk4"})}
    expected = gradients(plain, **keywords)
    for _ in range(3):  # TorchScript optimises after its first calls
        assert_same(gradients(scripted, **keywords), expected)


@each_kind
def test_the_parameters_are_back_in_place_and_train(kind):
    scripted, plain = kind()
    before = list(scripted.parameters())
    for func in (scripted, plain):
        optimizer = torch.optim.SGD(func.parameters(), 1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            weighted_loss(sa.odeint(func, start(), T, rtol=1e-5, atol=1e-7)).backward()
            optimizer.step()
    assert all(p is q for p, q in zip(scripted.parameters(), before, strict=True))
    assert_same([p.detach() for p in scripted.parameters()], [p.detach() for p in plain.parameters()])


@pytest.mark.parametrize("gradient", ["symplectic", "baseline", "aca"])
def test_a_changed_parameter_is_detected(gradient):
    scripted = torch.jit.script(Net())
    ys = sa.odeint(scripted, start(), T, gradient=gradient)
    with torch.no_grad():
        scripted.scale.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.norm = Net(), nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(t, self.norm(y))


@pytest.mark.parametrize("trained_in", [True, False], ids=["train", "eval"])
def test_modes_and_statistics_are_those_of_the_forward_pass(trained_in):
    results = []
    for func in (torch.jit.script(Normed()), Normed()):
        func.train(trained_in)
        with torch.no_grad():
            func.norm.running_mean.fill_(0.3)
        y0 = start().requires_grad_()
        ys = sa.odeint(func, y0, T, method="rk4", **FIXED)
        func.train(not trained_in)
        grads = torch.autograd.grad(weighted_loss(ys), (y0, *func.parameters()), allow_unused=True)
        assert func.training != trained_in and func.norm.training != trained_in
        results.append([*grads, *(b.detach() for b in func.buffers())])
    assert_same(*results)


def test_dropout_is_that_of_the_forward_pass():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.dropout = Net(), nn.Dropout(0.5)

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.dropout(self.net(t, y))

    results = []
    for func in (torch.jit.script(Noisy()), Noisy()):
        torch.manual_seed(5)
        results.append(gradients(func, method="rk4", **FIXED))
    assert_same(*results)


@pytest.mark.parametrize("prepared", [torch.jit.freeze, torch.jit.optimize_for_inference])
def test_frozen_code_has_no_parameters(prepared):
    results = []
    for func in (prepared(torch.jit.script(Net().eval())), Net()):
        y0 = start().requires_grad_()
        results.append(torch.autograd.grad(weighted_loss(sa.odeint(func, y0, T)), (y0,)))
    assert_same(*results)


@pytest.mark.parametrize("given", [True, False], ids=["given in params", "found in the first call"])
def test_a_method_of_a_scripted_module_has_its_parameters(given):
    func, plain = torch.jit.script(Net()), Net()
    results = []
    for module in (func, plain):
        ys = sa.odeint(module.forward, start(), T, params=module if given else None)
        results.append(torch.autograd.grad(weighted_loss(ys), tuple(module.parameters()), allow_unused=True))
    assert_same(*results)


def test_a_plain_function_may_name_a_scripted_module():
    net, plain = torch.jit.script(Net()), Net()
    results = []
    for module in (net, plain):
        y0 = start().requires_grad_()
        ys = sa.odeint(lambda t, y, module=module: module(t, y), y0, T, params=module)
        results.append(torch.autograd.grad(weighted_loss(ys), (y0, *module.parameters()), allow_unused=True))
    assert_same(*results)


def test_two_solves_and_double_backward():
    results = []
    for func in (torch.jit.script(Net()), Net()):
        y0 = start().requires_grad_()
        first = sa.odeint(func, y0, T, method="rk4", **FIXED)[-1]
        ys = sa.odeint(func, first, T, method="rk4", **FIXED)
        (bar,) = torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)
        results.append(torch.autograd.grad(bar.square().sum(), (y0, *func.parameters()), allow_unused=True))
    assert_same(*results)


def test_compile_with_a_scripted_module_is_refused():
    with pytest.raises(sa.UnsupportedCombination, match=r"cannot be compiled as a whole. torch.jit.script"):
        gradients(torch.jit.script(Net()), compile=True)
