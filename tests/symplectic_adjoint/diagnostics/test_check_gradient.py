"""check_gradient finds faults and passes correct gradients."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.steps import cotangent_sums
from tests.fields import SmallNet, start
from tests.gradients import EXACT
from tests.stiff_fields import StiffLinear

T = torch.tensor([0.0, 0.35, 1.0], dtype=torch.float64)
RK4 = {"method": "rk4", "options": {"step_size": 0.1}}


@pytest.mark.parametrize("keywords", [RK4, {"rtol": 1e-5, "atol": 1e-5}], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("gradient", EXACT)
def test_an_exact_gradient_passes(gradient, keywords):
    check = sa.check_gradient(SmallNet(), start(), T, gradient=gradient, **keywords)
    assert check.ok, str(check)
    assert set(check.errors) >= {"y0", "t", "twice", "inner.weight", "unused"}
    assert check.taylor_order == pytest.approx(3.0, abs=0.1)


def test_structures_complex_states_and_single_precision_pass():
    fields = [
        (lambda t, y: (y[1], -y[0] * t), (start(), start(seed=2))),
        (lambda t, y: 1j * y * torch.cos(t), torch.complex(start(), start(seed=2))),
        (lambda t, y: torch.tanh(y) * t, start().float()),
    ]
    for func, y0 in fields:
        check = sa.check_gradient(func, y0, T, **RK4)
        assert check.ok, str(check)


def test_an_approximate_gradient_does_not_pass():
    check = sa.check_gradient(SmallNet(), start(), T, gradient="continuous", rtol=1e-3, atol=1e-3)
    assert not check.ok and max(check.errors.values()) > 1e-6
    assert "NOT ok" in str(check)


def test_an_error_of_a_millionth_in_one_stage_is_found(monkeypatch):
    whole = cotangent_sums.weighted_sum

    def wrong(h, terms):
        w = whole(h, terms)
        return None if w is None else w * (1.0 + 1e-6 * (len(terms) == 3))

    monkeypatch.setattr(cotangent_sums, "weighted_sum", wrong)
    check = sa.check_gradient(SmallNet(), start(), T, **RK4)
    assert not check.ok and 1e-9 < max(check.errors.values()) < 1e-5
    assert check.taylor_order < 2.0  # the Taylor test alone would find it


def test_a_gradient_of_something_else_fails_the_taylor_test(monkeypatch):
    whole = cotangent_sums.weighted_sum
    monkeypatch.setattr(
        cotangent_sums, "weighted_sum", lambda h, terms: None if (w := whole(h, terms)) is None else 1.1 * w
    )
    check = sa.check_gradient(SmallNet(), start(), T, **RK4)
    assert check.taylor_order == pytest.approx(1.0, abs=0.1)


def test_a_tensor_that_func_uses_only_for_a_while_is_listed():
    leaf = torch.ones(3, dtype=torch.float64, requires_grad=True)
    hidden = iter(lambda: leaf, None)  # shows nothing of what it yields

    def func(t, y):
        return -y * (next(hidden) if 0.5 < t < 0.56 else 2.0)  # the same number of nodes either way

    check = sa.check_gradient(func, start(), T, **RK4)
    assert check.lost == ["a tensor of shape (3,), torch.float64, that was not known when the solve began"]
    assert not check.ok


def test_noise_from_funcs_own_generator_is_noticed():
    noise = torch.Generator().manual_seed(0)
    check = sa.check_gradient(lambda t, y: -y * torch.rand(3, generator=noise).double(), start(), T, **RK4)
    assert not check.repeats and not check.ok
    assert "returned other values" in str(check)


def test_the_callers_tensors_are_not_changed():
    net, y0 = SmallNet(), start().requires_grad_()
    before = [p.detach().clone() for p in net.parameters()]
    versions = [p._version for p in net.parameters()]
    sa.check_gradient(net, y0, T, **RK4)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert versions == [p._version for p in net.parameters()]
    assert y0.grad is None and all(p.grad is None for p in net.parameters())


def test_errors_are_listed_by_parameter_name():
    outside = torch.ones(3, dtype=torch.float64, requires_grad=True)
    check = sa.check_gradient(lambda t, y: -y * outside, start(), T, params=(outside,), **RK4)
    assert "outside" in check.errors
    assert "0.weight" in sa.check_gradient(Sequential(), start(), T, **RK4).errors


class Sequential(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3).double())

    def forward(self, t, y):
        return super().forward(y)


@pytest.mark.parametrize("method", ["kvaerno3", "kencarp4"])
def test_implicit_methods_and_a_func_in_two_parts(method):
    is_pair = sa.METHODS[method].additive
    func = (SmallNet(), StiffLinear()) if is_pair else SmallNet()
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    check = sa.check_gradient(func, start(), t, method=method, rtol=1e-4, atol=1e-4)
    assert check.ok, str(check)
    assert {"explicit.inner.weight", "implicit.A"} <= set(check.errors) if is_pair else "inner.weight" in check.errors
