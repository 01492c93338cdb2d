"""Tensors that func reads from closures and objects get their gradients without params; nothing upstream suffers."""

import gc
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.parameter_gradients import (
    APPROXIMATE,
    ROUNDING,
    T,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)

pytestmark = pytest.mark.usefixtures("little_garbage")


def decay(rates, drive):
    """Return a func whose closure holds two tensors."""
    return lambda t, y: torch.tanh(rates * y) + drive * t


class TwoOutputs(torch.autograd.Function):
    """(a, b) -> (2a + b, ab)."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return 2.0 * a + b, a * b

    @staticmethod
    def backward(ctx, grad_sum, grad_product):
        a, b = ctx.saved_tensors
        return 2.0 * grad_sum + b * grad_product, grad_sum + a * grad_product


def view_of_changed_base(a, b):
    """Return views that were made before their base was changed, whose nodes autograd makes anew when asked."""
    base = torch.stack([a.sin(), b])
    views = base[0], base[1]
    base.mul_(1.5)
    base[1].add_(a)
    return views


def view_changed_itself(a, b):
    base = torch.stack([a.exp(), b])
    view = base[0]
    view.mul_(0.5)
    return view, base[1]


def same_twice(a, b):
    z = a * b
    return z, z


def one_from_the_other(a, b):
    z = a.exp() * b
    return z, z.sin()


PAIRS = {
    "leaves": lambda a, b: (a, b),
    "computed": lambda a, b: (a.exp(), a * b),
    "a leaf and what is computed from it": lambda a, b: (a, a.exp() * b),
    "one computed from the other": one_from_the_other,
    "the same tensor twice": same_twice,
    "split": lambda a, b: torch.cat([a.exp(), b]).split(3),
    "chunk of a leaf": lambda a, b: torch.cat([a, b]).chunk(2),
    "unbind": lambda a, b: torch.stack([a.exp(), b * a]).unbind(),
    "one piece of an unbind": lambda a, b: (torch.stack([a, a * b, b * b]).unbind()[1], b),
    "max and min": lambda a, b: torch.stack([a, b]).aminmax(dim=0),
    "a custom Function's two outputs": TwoOutputs.apply,
    "its second output alone": lambda a, b: (TwoOutputs.apply(a, b)[1], a),
    "views of a changed base": view_of_changed_base,
    "a view changed itself": view_changed_itself,
    "expanded": lambda a, b: (a.sum().expand(3), b),
}
HOLDERS = {
    "closure": decay,
    "partial": lambda rates, drive: partial(lambda r, t, y, d: torch.tanh(r * y) + d * t, rates, d=drive),
    "defaults": lambda rates, drive: lambda t, y, r=rates, d=drive: torch.tanh(r * y) + d * t,
    "bound method": lambda rates, drive: Owner(rates, drive).slope,
    "callable object": lambda rates, drive: Owner(rates, drive),
    "namespace": lambda rates, drive: reading(SimpleNamespace(rates=rates, drive=drive)),
    "attributes of a module": lambda rates, drive: Holder(rates, drive),
    "buffers of a module": lambda rates, drive: Holder(rates, drive, buffers=True),
    "method of a module": lambda rates, drive: Holder(rates, drive).forward,
    "function around a module": lambda rates, drive: around(Holder(rates, drive)),
    "list": lambda rates, drive: reading_list([rates, drive]),
    "dict": lambda rates, drive: reading_dict({"rates": rates, "drive": drive}),
    "helper's closure": lambda rates, drive: around(decay(rates, drive)),
    "object that another method reads": lambda rates, drive: Delegating(rates, drive),
}


class Owner:
    """A plain object."""

    def __init__(self, rates, drive):
        self.rates, self.drive = rates, drive

    def slope(self, t, y):
        return torch.tanh(self.rates * y) + self.drive * t

    def __call__(self, t, y):
        return self.slope(t, y)


class Holder(nn.Module):
    """A module whose tensors are no parameters."""

    def __init__(self, rates, drive, *, buffers=False):
        super().__init__()
        if buffers:
            self.register_buffer("rates", rates)
            self.register_buffer("drive", drive)
        else:
            self.rates, self.drive = rates, drive

    def forward(self, t, y):
        return torch.tanh(self.rates * y) + self.drive * t


class Delegating(nn.Module):
    """A module whose forward method leaves the reading of a plain object to others."""

    def __init__(self, rates, drive):
        super().__init__()
        self.owner = SimpleNamespace(rates=rates, drive=drive)

    def decay(self, y):
        return self.owner.rates * y

    def slope(self, t, y):
        return torch.tanh(self.decay(y)) + self.owner.drive * t

    def forward(self, t, y):
        return self.slope(t, y)


def reading(held):
    return lambda t, y: torch.tanh(held.rates * y) + held.drive * t


def reading_list(held):
    return lambda t, y: torch.tanh(held[0] * y) + held[1] * t


def reading_dict(held):
    return lambda t, y: torch.tanh(held["rates"] * y) + held["drive"] * t


def around(func):
    def f(t, y):
        return func(t, y)

    return f


@pytest.mark.parametrize("pair", PAIRS)
@every_gradient
def test_however_they_were_computed(pair, gradient):
    inputs = [leaf(3), leaf(3, seed=1)]
    assert_as_backprop(lambda g, _: solve(decay(*PAIRS[pair](*inputs)), gradient=g), inputs, gradient)


@pytest.mark.parametrize("pair", ["leaves", "computed", "unbind"])
@pytest.mark.parametrize("holder", HOLDERS)
@every_gradient
def test_wherever_func_holds_them(holder, pair, gradient):
    inputs = [leaf(3), leaf(3, seed=1)]
    make = HOLDERS[holder]
    assert_as_backprop(lambda g, _: solve(make(*PAIRS[pair](*inputs)), gradient=g), inputs, gradient)


@every_gradient
def test_computed_by_funcs_own_module(gradient):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.drift = nn.Linear(3, 3, dtype=torch.float64), nn.Parameter(leaf(3))

        def forward(self, t, y):
            return torch.tanh(self.z * y) + self.drift * self.z.mean() * t

    torch.manual_seed(0)
    net = Net()

    def solution(g, _):
        net.z = net.encoder(torch.linspace(0.0, 1.0, 3, dtype=torch.float64))
        return solve(net, gradient=g)

    assert_as_backprop(solution, list(net.parameters()), gradient)


@every_gradient
def test_that_are_the_start_too(gradient):
    a = leaf(4, 3)

    def solution(g, _):
        z = a.sin()
        return solve(lambda t, y: torch.tanh(z * y), z, gradient=g)

    assert_as_backprop(solution, [a], gradient)


@every_gradient
def test_that_the_loss_and_a_second_solve_use_too(gradient):
    inputs = [leaf(3), leaf(3, seed=1)]

    def solution(g, _):
        z, drive = PAIRS["unbind"](*inputs)
        first = solve(decay(z, drive), gradient=g)
        return solve(decay(drive, z), first[-1], gradient=g) * z.sum() + first

    assert_as_backprop(solution, inputs, gradient)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("pair", ["leaves", "computed", "unbind", "views of a changed base"])
def test_have_second_derivatives(pair, gradient):
    def second(g):
        inputs = [leaf(3), leaf(3, seed=1)]
        loss = weighted_loss(solve(decay(*PAIRS[pair](*inputs)), gradient=g))
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), inputs)

    for got, expected in zip(second(gradient), second("backprop"), strict=True):
        assert relative_error(got, expected) < 10 * ROUNDING  # one order of derivatives more


class Encoder(torch.autograd.Function):
    """exp(x), which counts its backward passes and saves one tensor, whose life it shows."""

    passes = 0
    saved = None

    @staticmethod
    def forward(ctx, x):
        kept = x.exp()
        Encoder.saved = weakref.ref(kept)
        ctx.save_for_backward(kept)
        return kept * 1.0

    @staticmethod
    def backward(ctx, grad):
        Encoder.passes += 1
        return grad * ctx.saved_tensors[0]


@pytest.fixture
def encoder():
    Encoder.passes, Encoder.saved = 0, None
    gc.disable()  # nothing may need the cyclic collector
    yield Encoder
    gc.enable()


def encoded_solve(a, gradient, holder):
    z = Encoder.apply(a)
    return z, solve(HOLDERS[holder](z, leaf(3, seed=1)), gradient=gradient)


some_holders = pytest.mark.parametrize("holder", ["closure", "callable object", "attributes of a module", "partial"])


@some_holders
@every_gradient
def test_the_encoder_goes_backward_once_and_its_graph_is_freed(holder, gradient, encoder):
    a = leaf(3)
    z, ys = encoded_solve(a, gradient, holder)
    assert encoder.saved() is not None
    loss = weighted_loss(ys)
    loss.backward()
    assert encoder.passes == 1
    assert encoder.saved() is None  # although z, ys and the loss live
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    assert encoder.passes == 1
    del z


@some_holders
@every_gradient
def test_a_retained_graph_of_the_encoder_goes_backward_again(holder, gradient, encoder):
    a = leaf(3)
    _, ys = encoded_solve(a, gradient, holder)
    loss = weighted_loss(ys)
    first, again = (torch.autograd.grad(loss, a, retain_graph=True)[0] for _ in range(2))
    assert encoder.passes == 2 and relative_error(again, first) < ROUNDING


@some_holders
@every_gradient
def test_the_encoders_graph_lives_no_longer_than_the_solve(holder, gradient, encoder):
    a = leaf(3)
    z, ys = encoded_solve(a, gradient, holder)
    del z
    assert encoder.saved() is not None
    del ys
    assert encoder.saved() is None


@some_holders
@every_gradient
def test_the_encoder_can_go_backward_afterwards(holder, gradient, encoder):
    a, b = leaf(3), leaf(3)
    z, ys = encoded_solve(a, gradient, holder)
    (z_bar,) = torch.autograd.grad(weighted_loss(ys), z)
    assert encoder.passes == 0 and encoder.saved() is not None
    (got,) = torch.autograd.grad(z, a, z_bar)
    (expected,) = torch.autograd.grad(weighted_loss(encoded_solve(b, gradient, holder)[1]), b)
    assert relative_error(got, expected) < ROUNDING


@every_gradient
def test_a_hook_sees_the_whole_gradient_once(gradient):
    a, seen = leaf(3), []
    z = a.exp()
    z.register_hook(lambda grad: seen.append(grad.clone()))
    ys = solve(decay(z, leaf(3, seed=1)), gradient=gradient)
    weighted_loss(ys).backward()
    assert len(seen) == 1 and relative_error(seen[0] * z.detach(), a.grad) < ROUNDING


@every_gradient
def test_one_that_retains_its_gradient_gets_it(gradient):
    a = leaf(3)
    z = a.exp()
    z.retain_grad()
    weighted_loss(solve(decay(z, leaf(3, seed=1)), gradient=gradient)).backward()
    assert z.grad is not None and relative_error(z.grad * z.detach(), a.grad) < ROUNDING


@every_gradient
def test_one_changed_in_place_before_the_backward_pass_is_refused(gradient):
    z = leaf(3).exp()
    ys = solve(decay(z, leaf(3, seed=1)), gradient=gradient)
    with torch.no_grad():
        z.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        weighted_loss(ys).backward()


@every_gradient
def test_gradients_accumulate_over_micro_batches(gradient):
    """Four backward passes with one step of an optimizer in mind, through an encoder that is called for each."""
    encoder, batches = nn.Linear(3, 3, dtype=torch.float64), start(batch=8).chunk(4)

    def accumulated(g):
        encoder.zero_grad()
        for batch in batches:
            z = encoder(batch).tanh()
            (weighted_loss(solve(decay(z, z.cos()), batch, gradient=g)) / len(batches)).backward()
        return [p.grad.clone() for p in encoder.parameters()]

    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    for got, expected in zip(accumulated(gradient), accumulated("backprop"), strict=True):
        assert relative_error(got, expected) < bound


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("holder", ["closure", "attributes of a module", "callable object"])
@every_gradient
def test_a_solve_may_be_inside_torchs_own_checkpoint(holder, reentrant, gradient):
    """The solve runs again in the backward pass, and inside that its own one."""

    def gradients(g, wrap):
        a, b, y0 = leaf(3), leaf(3, seed=1), start().requires_grad_()

        def segment(y):
            z, drive = PAIRS["unbind"](a, b)
            return solve(HOLDERS[holder](z, drive), y, gradient=g)[-1]

        y = y0
        for _ in range(3):
            y = wrap(segment, y)
        weighted_loss(y).backward()
        return a.grad, b.grad, y0.grad

    got = gradients(gradient, partial(checkpoint, use_reentrant=reentrant))
    expected = gradients(gradient, lambda segment, y: segment(y))
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING


@every_gradient
def test_checkpoints_that_keep_only_some_products_may_be_around_a_solve(gradient):
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    weight = leaf(3, 3)

    def segment(y):
        z = weight @ weight
        return solve(lambda t, x: torch.tanh(x @ z), y, gradient=gradient)[-1]

    def gradient_of(run):
        weight.grad = None
        weighted_loss(run(start().requires_grad_())).backward()
        return weight.grad

    got = gradient_of(lambda y: checkpoint(segment, y, use_reentrant=False, context_fn=contexts))
    assert relative_error(got, gradient_of(segment)) < ROUNDING


@every_gradient
def test_in_one_solve_of_times_that_need_a_gradient(gradient):
    inputs = [leaf(3), leaf(3, seed=1), T.clone().requires_grad_()]

    def solution(g, _):
        z, drive = PAIRS["split"](*inputs[:2])
        return sa.odeint(decay(z, drive), start(), inputs[2], gradient=g, rtol=1e-5, atol=1e-5)

    assert_as_backprop(solution, inputs, gradient)
