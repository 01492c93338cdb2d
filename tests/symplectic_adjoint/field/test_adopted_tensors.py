"""Tensors that func reads from closures and objects get their gradients without params; nothing upstream suffers."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symplectic_adjoint as sa
from tests.fields import start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.adopted_tensors import HOLDERS, PAIRS, decay
from tests.symplectic_adjoint.field.parameter_gradients import (
    APPROXIMATE,
    ROUNDING,
    T,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)


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
