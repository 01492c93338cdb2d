"""A tensor that func uses and that neither a module nor params holds: its lost gradient is an error."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    assert_as_backprop,
    every_gradient,
    leaf,
    losing_gradients,
    solve,
)

pytestmark = pytest.mark.usefixtures("little_garbage")


class TestALostGradient:
    """A tensor that func uses, that is neither in a module nor in params."""

    def test_is_named_by_its_shape_and_what_to_do(self):
        weight = leaf(3)
        with pytest.raises(sa.LostGradient, match=r"shape \(3,\), torch.float64.*params=\(tensor,\).*or detach\(\) it"):
            solve(lambda t, y: weight * y, gradient="symplectic")

    @losing_gradients
    def test_of_a_closures_leaf_is_an_error(self, gradient):
        net, weight = SmallNet(), leaf(3)
        with pytest.raises(sa.LostGradient, match=r"shape \(3,\)"):
            solve(lambda t, y: net(t, y) * weight, gradient=gradient, params=(*net.parameters(),))

    @losing_gradients
    def test_of_a_leaf_behind_a_tensor_computed_outside_func_is_an_error(self, gradient):
        weight = leaf(5)
        computed = weight.exp()[:3] * 2.0
        with pytest.raises(sa.LostGradient, match=r"shape \(5,\)"):
            solve(lambda t, y: computed * y, gradient=gradient)

    @losing_gradients
    def test_of_a_buffer_that_requires_a_gradient_is_an_error(self, gradient):
        class Buffered(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", leaf(3))

            def forward(self, t, y):
                return self.scale * y

        with pytest.raises(sa.LostGradient, match=r"shape \(3,\)"):
            solve(Buffered(), gradient=gradient)

    @losing_gradients
    @pytest.mark.parametrize("keywords", [{"options": {"jump_t": [0.5]}}, {**FIXED, "options": {"jump_t": [0.5]}}])
    def test_of_a_leaf_first_used_after_a_jump_is_an_error_in_the_forward_pass(self, keywords, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)  # in graphs of one size

        def func(t, y):
            return (known if t < 0.5 else unknown) * y

        with pytest.raises(sa.LostGradient):
            solve(func, gradient=gradient, params=(known,), **keywords)

    @losing_gradients
    def test_of_a_leaf_first_used_late_is_an_error_in_the_backward_pass(self, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)

        def func(t, y):
            return known * y if t < 0.5 else known * y + unknown.sin()

        ys = solve(func, gradient=gradient, params=(known,), **FIXED)
        with pytest.raises(sa.LostGradient):
            ys.sum().backward()
        assert known.grad is None

    @losing_gradients
    def test_of_a_leaf_used_early_and_not_late_is_an_error_in_the_forward_pass(self, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)

        def func(t, y):
            return known * y if t > 0.5 else known * y + unknown.sin()

        with pytest.raises(sa.LostGradient):
            solve(func, gradient=gradient, params=(known,), **FIXED)

    @losing_gradients
    def test_of_one_half_of_a_chunked_tensor_is_an_error(self, gradient):
        flat = leaf(6)
        known, unknown = flat.sin().chunk(2)
        with pytest.raises(sa.LostGradient, match=r"shape \(6,\)"):
            solve(lambda t, y: known * y + unknown, gradient=gradient, params=(known,))
        assert_as_backprop(lambda g, _: _chunked(flat, g), [flat], gradient)

    @losing_gradients
    def test_is_an_error_where_only_y0_requires_a_gradient_too(self, gradient):
        net, y0, weight = SmallNet().requires_grad_(False), start().requires_grad_(), leaf(3)
        with pytest.raises(sa.LostGradient):
            solve(lambda t, y: net(t, y) * weight, y0, gradient=gradient)

    @every_gradient
    def test_is_no_error_under_no_grad(self, gradient):
        weight = leaf(3)
        with torch.no_grad():
            ys = solve(lambda t, y: weight * y, gradient=gradient)
        assert not ys.requires_grad

    @every_gradient
    def test_is_not_reported_for_a_leaf_that_func_creates(self, gradient):
        weight = leaf(3)

        def func(t, y):
            scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
            return weight * y * scale

        solve(func, gradient=gradient, params=(weight,)).sum().backward()
        assert weight.grad is not None


def _chunked(flat, gradient):
    halves = flat.sin().chunk(2)
    return solve(lambda t, y: halves[0] * y + halves[1], gradient=gradient, params=halves)
