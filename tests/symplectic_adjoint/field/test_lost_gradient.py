"""A tensor that func uses and that neither a module nor params holds: its lost gradient is an error."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.symplectic_adjoint.field.parameter_gradients import (
    FIXED,
    assert_as_backprop,
    every_gradient,
    leaf,
    losing_gradients,
    solve,
)


class TestALostGradient:
    """A tensor that no search of the forward pass can find: in a generator, and used late only."""

    @losing_gradients
    def test_is_described_with_what_to_do(self, gradient):
        first, late = leaf(3), leaf(3, seed=1)
        held = iter(lambda: late, None)

        def func(t, y):
            return first * y if t < 0.5 else first * y + next(held).sin()

        ys = solve(func, gradient=gradient, **FIXED)
        message = r"a tensor of shape \(3,\), torch.float64.*params=\(tensor,\).*or detach\(\) it"
        with pytest.raises(sa.LostGradient, match=message):
            ys.sum().backward()
        assert first.grad is None
        both = (first, late)
        assert_as_backprop(lambda g, p: solve(func, gradient=g, params=p, **FIXED), both, gradient, params=both)

    @losing_gradients
    def test_is_an_error_where_it_and_its_stand_in_are_used(self, gradient):
        computed = leaf(3).exp()
        held = [computed]
        with pytest.raises(sa.LostGradient, match=r"computed in a variable or an attribute .* another way"):
            solve(lambda t, y: computed * y + held[0], gradient=gradient)

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
