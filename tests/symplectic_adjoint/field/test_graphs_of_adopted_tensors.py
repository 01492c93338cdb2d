"""The graph of a tensor that func reads goes backward once, and lives no longer than with autograd alone."""

import gc
import weakref

import pytest
import torch

from tests.fields import weighted_loss
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.adopted_tensors import HOLDERS, decay
from tests.symplectic_adjoint.field.parameter_gradients import ROUNDING, every_gradient, leaf, solve


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
