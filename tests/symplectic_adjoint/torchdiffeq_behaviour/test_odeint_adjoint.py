"""odeint_adjoint has torchdiffeq's signature, and what only torchdiffeq has is refused or has no effect, by name."""

import inspect
import math

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from tests.gradients import EXACT, STANDARD, taking_turns
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import Swing, times

THEIR_OTHER_METHODS = ["explicit_adams", "implicit_adams", "fixed_adams", "scipy_solver"]


@pytest.mark.parametrize("method", THEIR_OTHER_METHODS)
def test_a_method_that_only_torchdiffeq_has_is_refused_with_one_to_use_instead(method):
    with pytest.raises(ValueError, match=method) as refusal:
        sa.odeint(Swing(), torch.ones(2), times(0.0, 1.0), method=method)
    assert any(name in str(refusal.value).replace(method, "") for name in (*sa.METHODS, *IMPLICIT_METHODS))


@pytest.mark.parametrize("option", ["nonsense", "stepsize"])
def test_an_unknown_option_is_an_error_and_not_a_warning(option):
    with pytest.raises(ValueError, match=option):
        sa.odeint(Swing(), torch.ones(2), times(0.0, 1.0), options={option: 1})


class Mixed(nn.Module):
    """A field with a parameter of its own and, where given, a tensor from elsewhere."""

    def __init__(self, elsewhere=None):
        super().__init__()
        self.own = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.elsewhere = [elsewhere]  # in a list, so that the module does not register it

    def forward(self, t, y):
        extra = 0.0 if self.elsewhere[0] is None else self.elsewhere[0]
        return (self.own + extra) * torch.cos(t) * y


def grads(odeint, func, inputs, **keywords):
    y0 = torch.tensor([1.0, -0.5], dtype=torch.float64)
    ys = odeint(func, y0, times(0.0, 1.0, 2.0), **{"rtol": 1e-6, "atol": 1e-8, **keywords})
    return torch.autograd.grad(ys[-1].sum(), inputs)


def test_has_torchdiffeqs_parameters_and_defaults():
    ours, other = (inspect.signature(f).parameters for f in (sa.odeint_adjoint, torchdiffeq.odeint_adjoint))
    assert set(other) <= set(ours)
    for name, parameter in other.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name


@pytest.mark.parametrize("gradient", STANDARD)
def test_gives_the_gradient_that_was_asked_for(gradient):
    func = Mixed()
    expected = grads(sa.odeint, func, [func.own], gradient=gradient)
    assert torch.equal(grads(sa.odeint_adjoint, func, [func.own], gradient=gradient)[0], expected[0])


def test_is_exact_by_default():
    func = Mixed()
    by_default = grads(sa.odeint_adjoint, func, [func.own])
    assert torch.equal(by_default[0], grads(sa.odeint, func, [func.own], gradient="symplectic")[0])


@pytest.mark.parametrize("gradient", STANDARD)
def test_adjoint_params_are_added_to_funcs_own(gradient):
    elsewhere = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    func = Mixed(elsewhere)
    keywords = {"adjoint_params": iter([elsewhere]), "gradient": gradient}
    own, extra = grads(sa.odeint_adjoint, func, [func.own, elsewhere], **keywords)
    # y(2) = exp(0.5 sin 2) y0, and both enter as their sum.
    exact = math.sin(2.0) * math.exp(0.5 * math.sin(2.0)) * 0.5
    assert float(own) == pytest.approx(exact, abs=1e-4) and float(extra) == pytest.approx(float(own), rel=1e-12)


@pytest.mark.parametrize("gradient", ["symplectic", "continuous"])
def test_a_tensor_that_is_neither_funcs_own_nor_in_adjoint_params_gets_its_gradient(gradient):
    elsewhere = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    func = Mixed(elsewhere)
    own, extra = grads(sa.odeint_adjoint, func, [func.own, elsewhere], gradient=gradient)
    assert float(extra) == pytest.approx(float(own), rel=1e-12)


SECOND_SOLVE = [
    ("adjoint_rtol", 1e-3),
    ("adjoint_atol", 1e-3),
    ("adjoint_method", "bosh3"),
    ("adjoint_options", {"norm": "seminorm"}),
]


@pytest.mark.parametrize(
    ("gradient", "name", "value"),
    taking_turns(
        [
            *SECOND_SOLVE,
            ("adjoint_rtol", torch.tensor(1e-3)),
            ("adjoint_rtol", 0.0),
            ("adjoint_atol", (1e-3, 1e-3)),
            ("adjoint_method", "implicit_adams"),
            ("adjoint_options", {"norm": max, "nonsense": 1}),
        ],
        [*EXACT, "mali", "reversible"],
    ),
)
def test_settings_of_a_second_solve_change_nothing_where_there_is_none_with_one_warning(gradient, name, value):
    func = Mixed()
    expected = grads(sa.odeint, func, [func.own], gradient=gradient)
    with pytest.warns(sa.IgnoredArgumentWarning, match=rf"^{name}: no effect, because gradient='{gradient}'") as given:
        found = [grads(sa.odeint_adjoint, func, [func.own], gradient=gradient, **{name: value}) for _ in range(2)]
    assert len(given) == 1 and given[0].filename == __file__
    assert all(torch.equal(gradient[0], expected[0]) for gradient in found)


def test_all_settings_of_a_second_solve_are_named_in_one_warning_and_auto_has_none_either():
    func = Mixed()
    with pytest.warns(sa.IgnoredArgumentWarning, match="adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options:"):
        grads(sa.odeint_adjoint, func, [func.own], gradient="auto", memory_budget="1 GiB", **dict(SECOND_SOLVE))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("adjoint_rtol", "tight", TypeError),
        ("adjoint_atol", [None, "tight"], TypeError),
        ("adjoint_method", "dopri6", ValueError),
        ("adjoint_options", ["seminorm"], TypeError),
        ("adjoint_options", {"norm": "semi-norm"}, TypeError),
    ],
)
def test_a_setting_of_a_second_solve_that_torchdiffeq_cannot_use_either_is_refused(name, value, error):
    func = Mixed()
    with pytest.raises(error, match="dopri6" if name == "adjoint_method" else name):
        grads(sa.odeint_adjoint, func, [func.own], **{name: value})


def test_a_gradient_object_with_a_second_solve_takes_its_settings_unless_it_has_them():
    func = Mixed()
    (expected,) = grads(sa.odeint, func, [func.own], gradient=sa.Continuous(rtol=1e-3, atol=1e-2))
    keywords = {"adjoint_rtol": 1e-3, "adjoint_atol": torch.tensor(1e-2, dtype=torch.float64)}
    for gradient in (sa.Continuous(), sa.Continuous(rtol=1e-3)):
        assert torch.equal(grads(sa.odeint_adjoint, func, [func.own], gradient=gradient, **keywords)[0], expected)
    with pytest.raises(sa.UnsupportedCombination, match=r"adjoint_rtol=0.001 and .* both set the second solve's rtol"):
        grads(sa.odeint_adjoint, func, [func.own], gradient=sa.Continuous(rtol=1e-4), adjoint_rtol=1e-3)


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize("keyword", ["params", "adjoint_params"])
def test_a_module_in_place_of_its_parameters_is_accepted(gradient, keyword):
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    holder = [net]

    def func(t, y):
        return holder[0](y)

    found, expected = (
        grads(sa.odeint_adjoint, func, list(net.parameters()), gradient=gradient, **{keyword: given})
        for given in (net, tuple(net.parameters()))
    )
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(("name", "value"), SECOND_SOLVE)
def test_options_of_a_second_solve_are_the_continuous_gradients(name, value):
    func = Mixed()
    (found,) = grads(sa.odeint_adjoint, func, [func.own], gradient="continuous", **{name: value})
    assert float(found) == pytest.approx(math.sin(2.0) * math.exp(0.3 * math.sin(2.0)) * 0.5, rel=1e-2)


def test_the_second_solve_has_tolerances_and_a_method_of_its_own():
    def calls(odeint, **keywords):
        func, seen = Mixed(), []
        func.register_forward_hook(lambda *_: seen.append(1))
        y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
        ys = odeint(func, y0, times(0.0, 2.0), **{"rtol": 1e-6, "atol": 1e-6, "gradient": "continuous", **keywords})
        forward = len(seen)
        ys[-1].sum().backward()
        return forward, len(seen) - forward

    plain = calls(sa.odeint_adjoint)
    tight, loose = (calls(sa.odeint_adjoint, adjoint_rtol=tol, adjoint_atol=tol) for tol in (1e-11, 1e-2))
    assert plain[0] == tight[0] == loose[0] and loose[1] < plain[1] < tight[1]
    fixed = calls(sa.odeint_adjoint, adjoint_method="rk38", adjoint_options={"step_size": 0.5})
    assert fixed == (plain[0], 16)  # 4 steps of 4 stages
    assert calls(sa.odeint, gradient=sa.Continuous(rtol=1e-11, atol=1e-11)) == tight


@pytest.mark.parametrize("interface", [sa.odeint_symplectic_adjoint, sa.odeint_checkpoint, sa.odeint_onecheckpoint])
def test_the_reference_codes_names_are_presets_of_it(interface):
    func, preset = Mixed(), {
        sa.odeint_symplectic_adjoint: "symplectic",
        sa.odeint_checkpoint: "aca",
        sa.odeint_onecheckpoint: "baseline",
    }[interface]  # fmt: skip
    expected = grads(sa.odeint, func, [func.own], gradient=preset)
    assert torch.equal(grads(interface, func, [func.own])[0], expected[0])
    assert torch.equal(grads(interface, func, [func.own], adjoint_params=(func.own,))[0], expected[0])
