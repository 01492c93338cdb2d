"""A value that func computes from a parameter in one call and uses in others is reported, and constants are not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import EXACT
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness
RECOMPUTING = [name for name in EXACT if name != "backprop"]
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)


def solve(func, gradient):
    return sa.odeint(func, torch.ones(3, dtype=torch.float64), T, gradient=gradient, method="rk38", options=FIXED)


FIXED = {"step_size": 0.2}


class Embedded(nn.Module):
    """Keeps embeddings of the time, each in the place that remember and recall use."""

    def __init__(self, key):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.net = nn.Linear(1, 3, dtype=torch.float64), nn.Linear(3, 3, dtype=torch.float64)
        self.key = key

    def forward(self, t, y):
        key = self.key(t.item())
        value = self.recall(key)
        if value is None:
            value = self.embed(t.view(1))
            self.remember(key, value)
        return torch.tanh(self.net(y) + value)


class InADict(Embedded):
    def __init__(self, key):
        super().__init__(key)
        self.memo = {}

    def recall(self, key):
        return self.memo.get(key)

    def remember(self, key, value):
        self.memo[key] = value


class InAList(Embedded):
    def __init__(self, key):
        super().__init__(key)
        self.memo = []

    def recall(self, key):
        return next((value for known, value in self.memo if known == key), None)

    def remember(self, key, value):
        self.memo.append((key, value))


class InAnAttribute(Embedded):
    """That of the last time only."""

    last = None

    def recall(self, key):
        return self.value if self.last == key else None

    def remember(self, key, value):
        self.last, self.value = key, value


class InAnObject(InAnAttribute):
    def __init__(self, key):
        super().__init__(key)
        self.box = SimpleNamespace(key=None, value=None)

    def recall(self, key):
        return self.box.value if self.box.key == key else None

    def remember(self, key, value):
        self.box.key, self.box.value = key, value


KEYS = {"the time": float, "rounded": lambda t: round(t, 6), "a part": lambda t: int(9.99 * t)}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", [InADict, InAList, InAnAttribute, InAnObject])
@recomputing_gradients
def test_an_embedding_kept_for_a_time_gives_no_wrong_gradient(gradient, kind, key):
    def gradients(name):
        func = kind(KEYS[key])
        solve(func, name).square().sum().backward()
        return {name: p.grad for name, p in func.named_parameters()}

    expected = gradients("backprop")
    try:
        got = gradients(gradient)
    except (sa.LostGradient, sa.FunctionChanged):
        return
    assert max(relative_error(got[name], expected[name]) for name in got) < ROUNDING


@pytest.mark.parametrize("kind", [InADict, InAList])
@recomputing_gradients
def test_embeddings_kept_for_rounded_times_are_reported(gradient, kind):
    ys = solve(kind(KEYS["rounded"]), gradient)
    with pytest.raises(sa.LostGradient, match=r"value that it had computed .*and kept"):
        ys.square().sum().backward()


class Layered(nn.Module):
    """A network for each part of the time, which other parts miss, and constants that are made when first used."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(3, 3, dtype=torch.float64) for _ in range(3))
        self.frequencies, self.cache, self.calls, self.log = None, {}, torch.zeros(()), []

    def forward(self, t, y):
        if self.frequencies is None:
            self.frequencies = torch.linspace(1.0, 2.0, 3, dtype=torch.float64)
        phase = self.cache.setdefault("phase", torch.ones(3, dtype=torch.float64))
        self.calls = self.calls + 1.0
        self.log.append(y.detach())
        return torch.tanh(self.layers[min(2, int(3.0 * t))](y) + torch.sin(self.frequencies * t + phase))


@recomputing_gradients
def test_constants_kept_by_a_func_with_branches_in_time_are_not(gradient):
    def gradients(name):
        func = Layered()
        solve(func, name).square().sum().backward()
        return [p.grad for p in func.parameters()]

    errors = map(relative_error, gradients(gradient), gradients("backprop"))
    assert max(errors) < ROUNDING


class Late(nn.Module):
    """Has a term after a time only: a value of kind.recall, computed in the first call there and kept."""

    def __init__(self, kind, make):
        super().__init__()
        self.memo, self.make = kind(lambda t: "the only one"), make
        self.unused = nn.Linear(1, 3, dtype=torch.float64)

    def forward(self, t, y):
        rate = self.memo.net(y)
        if t.item() > 0.5:
            key = self.memo.key(t.item())
            value = self.memo.recall(key)
            if value is None:
                value = self.make(self, t)
                self.memo.remember(key, value)
            rate = rate + value
        return torch.tanh(rate)


def embedded(func, t):
    return func.memo.embed(torch.ones(1, dtype=torch.float64))


def constant(func, t):
    return torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize("kind", [InADict, InAList, InAnAttribute, InAnObject])
@recomputing_gradients
def test_an_embedding_that_is_first_used_and_kept_late_is_reported(gradient, kind):
    ys = solve(Late(kind, embedded), gradient)
    with pytest.raises(sa.LostGradient, match=r"near t = .* these parameters got no gradient: .*memo.embed.weight"):
        ys.square().sum().backward()


@pytest.mark.parametrize("kind", [InADict, InAList, InAnAttribute, InAnObject])
@pytest.mark.parametrize("of_each_time", [False, True])
@recomputing_gradients
def test_a_constant_that_is_kept_late_is_not(gradient, of_each_time, kind):
    """Beside parameters that func does not use, only one for all times might be computed from them: freeze them."""

    def gradients(name):
        func = Late(kind, constant)
        if of_each_time:
            func.memo.key = float
        else:
            for p in (*func.unused.parameters(), *func.memo.embed.parameters()):
                p.requires_grad_(False)
        solve(func, name).square().sum().backward()
        return [p.grad for p in func.memo.net.parameters()]

    errors = map(relative_error, gradients(gradient), gradients("backprop"))
    assert max(errors) < ROUNDING


@recomputing_gradients
def test_a_constant_that_the_first_call_makes_is_kept_beside_unused_parameters(gradient):
    class Early(Layered):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(1, 1)

    func = Early()
    solve(func, gradient).square().sum().backward()
    assert func.unused.weight.grad is None and func.layers[2].weight.grad is not None
