"""A func compiled by torch.compile, whose backward code overwrites what a graph saved unless that is retained."""

import copy
import itertools

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import taking_turns
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0])
ROUNDING = 1e-5  # some hundred operations of 6e-8, which the compiler may put in another order
METHODS = {"rk4": {"method": "rk4"}, "dopri5": {"rtol": 1e-3, "atol": 1e-3}}
WHERE = ["object", "dict", "list", "variable"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


@pytest.fixture(autouse=True)
def _compiled_anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Holder:
    """An object with an attribute W."""


def net_and_compiled():
    """Return a network, and a compiled copy whose backward code was made for graphs that are not retained."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend="aot_eager")
    for y in (start(), start().requires_grad_()):
        compiled(y).sum().backward()
    twin.zero_grad()
    return net, compiled


def start():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def conditioned(net, W, where):
    """Return a func that reads W where it is held."""
    if where == "variable":
        return lambda t, y: net(y) @ W
    if where == "object":
        holder = Holder()
        holder.W = W
        return lambda t, y: net(y) @ holder.W
    held, key = ({"W": W}, "W") if where == "dict" else ([W], 0)
    return lambda t, y: net(y) @ held[key]


def gradients(net, func_of, **keywords):
    torch.manual_seed(2)
    encoder, y0 = nn.Linear(3, 3), start().requires_grad_()
    W = encoder(torch.eye(3))
    ys = sa.odeint(func_of(net, W, encoder), y0, T, **keywords)
    loss = ys.square().sum() + W.square().sum()
    return torch.autograd.grad(loss, [y0, *encoder.parameters(), *net.parameters()])


@pytest.mark.parametrize(("gradient", "method", "where"), taking_turns(itertools.product(METHODS, WHERE)))
def test_conditioning_is_held_anywhere(gradient, method, where):
    (net, compiled), steps = net_and_compiled(), METHODS[method]

    def func_of(net, W, encoder):
        return conditioned(net, W, where)

    expected = gradients(net, func_of, gradient="backprop" if sa.GRADIENTS[gradient].exact else gradient, **steps)
    got = gradients(compiled, func_of, gradient=gradient, **steps)
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING


def of_encoder_too(net, W, encoder):
    """Return a func that uses what W was computed from as well, through which each VJP then runs."""
    held = [W]
    return lambda t, y: net(y) @ held[0] + encoder(y)


def of_a_result(net, W, encoder):
    """Return a func that uses two tensors, one computed from the other."""
    held = [W, torch.tanh(W)]
    return lambda t, y: y @ held[0] - torch.sin(y @ held[1])


@pytest.mark.parametrize("func_of", [of_encoder_too, of_a_result])
def test_graphs_are_retained_where_conditioning_leads_to_another_parameter(func_of):
    net, _ = net_and_compiled()
    expected = gradients_used(net, func_of, gradient="backprop", method="rk4")
    got = gradients_used(net, func_of, method="rk4")
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING


def gradients_used(net, func_of, **keywords):
    torch.manual_seed(2)
    encoder, y0 = nn.Linear(3, 3), start().requires_grad_()
    W = torch.tanh(encoder(torch.eye(3)))
    ys = sa.odeint(func_of(net, W, encoder), y0, T, **keywords)
    return torch.autograd.grad(ys.square().sum() + W.square().sum(), [y0, *encoder.parameters()])


def test_where_a_graph_must_be_retained_it_is_refused():
    _, compiled = net_and_compiled()
    with pytest.raises(sa.UnsupportedCombination, match=r"donated_buffer = False.*before it is compiled"):
        gradients(compiled, of_encoder_too, method="rk4")


@pytest.mark.parametrize("linear", ["dense", "batched"])
@pytest.mark.parametrize("method", ["sdirk2", "radauIIA3"])
def test_implicit_methods_refuse_it(method, linear):
    _, compiled = net_and_compiled()
    options = {"step_size": 0.2, "linear": linear}
    with pytest.raises(sa.UnsupportedCombination, match=r"donated_buffer = False.*before it is compiled"):
        sa.odeint(lambda t, y: compiled(y), start(), T, method=method, options=options, params=compiled)


def test_gmres_refuses_any_compiled_func():
    _, compiled = net_and_compiled()
    with torch._functorch.config.patch(donated_buffer=False):
        torch._dynamo.reset()
        with pytest.raises(sa.UnsupportedCombination, match="linear='dense'"):
            sa.odeint(
                compiled_of_time(compiled), start(), T, method="sdirk2", options={"step_size": 0.2, "linear": "gmres"}
            )


@pytest.mark.parametrize("method", ["sdirk2", "radauIIA3"])
def test_implicit_methods_take_one_that_was_compiled_without_donated_buffers(method):
    with torch._functorch.config.patch(donated_buffer=False):
        net, compiled = net_and_compiled()
        steps = {"method": method, "options": {"step_size": 0.2}}
        got, expected = (
            torch.autograd.grad(sa.odeint(compiled_of_time(f), start(), T, **steps).square().sum(), [*f.parameters()])
            for f in (compiled, net)
        )
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING


def compiled_of_time(net):
    return lambda t, y: net(y)
