"""The backward pass has the attributes, the training mode and the autocast of the forward pass."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.backward.recomputation import (
    APPROXIMATE,
    ROUNDING,
    Field,
    T,
    assert_as_backprop,
    every_gradient,
    gradients,
    recomputing_gradients,
    solve,
)


class Conditioned(nn.Module):
    """Reads an attribute that is set before each solve."""

    def __init__(self, encoder=None):
        super().__init__()
        self.net = SmallNet()
        self.encoder = encoder
        self.context = None

    def forward(self, t, y):
        return self.net(t, y) + torch.tanh(self.context)


@recomputing_gradients
@pytest.mark.parametrize("kind", ["data", "of-its-own-encoder", "of-an-encoder-outside"])
def test_the_backward_pass_has_the_attribute_of_the_forward_pass_after_it_was_replaced(kind, gradient):
    def solution(gradient):
        torch.manual_seed(0)
        encoder, outputs = nn.Linear(2, 3).double(), []
        func = Conditioned(encoder if kind == "of-its-own-encoder" else None)
        for data in torch.randn(3, 4, 2, dtype=torch.float64):
            func.context = encoder(data) if kind != "data" else encoder(data).detach()
            params = (func.context,) if kind == "of-an-encoder-outside" else ()
            outputs.append(solve(func, gradient=gradient, params=params))
        func.context = None
        return torch.stack(outputs), nn.ModuleList([func, encoder])

    assert_as_backprop(solution, gradient)


class TestTheTrainingMode:
    @every_gradient
    @pytest.mark.parametrize("training", [True, False])
    def test_of_the_backward_pass_is_that_of_the_forward_pass(self, training, gradient):
        def solution(gradient):
            func = Field(nn.Sequential(nn.BatchNorm1d(3).double(), nn.Dropout(0.4))).train(training)
            return solve(func, gradient=gradient, seed=3), func

        expected = gradients(*solution("backprop"))
        ys, func = solution(gradient)
        func.train(not training)
        got = gradients(ys, func)
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound
        assert all(module.training != training for module in func.modules())

    @every_gradient
    def test_of_a_submodule_is_its_own(self, gradient):
        func = Field(nn.Sequential(nn.BatchNorm1d(3).double(), nn.Dropout(0.4)))
        func.after[1].eval()
        ys = solve(func, gradient=gradient)
        func.eval()
        gradients(ys, func)
        assert not any(module.training for module in func.modules())


class TestAutocast:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 3)

        def forward(self, t, y):
            return self.outer(torch.tanh(self.inner(y))).float()

    def solution(self, gradient, *, cache=True):
        func, y0 = self.Net(), start().float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
            ys = sa.odeint(func, y0, T, method="rk4", options={"step_size": 0.25}, gradient=gradient)
        return ys, func, y0

    @recomputing_gradients
    @pytest.mark.parametrize("within", [False, True], ids=["backward-outside", "backward-inside"])
    def test_of_the_backward_pass_is_that_of_the_forward_pass(self, within, gradient):
        ys, func, y0 = self.solution(gradient)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=within):
            got = gradients(ys, func, y0)
        # The cache hands one cast weight to all calls of a graph, whose gradients are summed in bfloat16 then.
        expected = gradients(*self.solution("backprop", cache=False))
        # The same rounded operations, summed in float32; other casts would be off by thousandths.
        bound = 1e-5 if gradient in EXACT else APPROXIMATE
        errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
        assert max(errors) < bound, errors

    @every_gradient
    def test_off_in_the_forward_pass_is_off_in_the_backward_pass(self, gradient):
        func, seen = nn.Linear(3, 3), set()

        def spy(t, y):
            seen.add(func(y).dtype)
            return func(y)

        ys = sa.odeint(spy, torch.ones(2, 3), T, method="rk4", gradient=gradient, params=(*func.parameters(),))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ys.square().sum().backward()
        assert seen == {torch.float32}

    @recomputing_gradients
    def test_is_the_same_in_a_second_backward_pass(self, gradient):
        ys, func, y0 = self.solution(gradient)
        loss = weighted_loss(ys)
        first, second = (torch.autograd.grad(loss, [y0, *func.parameters()], retain_graph=True) for _ in range(2))
        # Stages kept for the first backward pass are recomputed for the second, with the same casts.
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
