"""Step control where f computes in bfloat16 or float16: no step is shorter than the rounding of f allows."""

import math

import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.oracle import relative_error
from tests.symplectic_adjoint.gradients.half_precision import Net, T, autocast, every_half, start


class TestStepControl:
    @every_half
    @pytest.mark.parametrize("method", ["dopri5", "bosh3"])
    @pytest.mark.parametrize("zero", [False, True])
    def test_ends_with_torchdiffeqs_error_in_fewer_calls(self, method, zero, dtype):
        y0 = start() * (not zero)
        tolerances = {"rtol": 1e-6, "atol": 1e-8}

        def error_and_calls(odeint, method):
            calls = 0
            net = Net()

            def func(t, y):
                nonlocal calls
                calls += 1
                return net(t, y)

            with torch.no_grad(), autocast(dtype):
                end = odeint(func, y0, T[[0, -1]], method=method, **tolerances)[-1]
            return relative_error(end.double(), exact), calls

        with torch.no_grad():
            exact = torchdiffeq.odeint(Net().double(), y0.double(), T[[0, -1]].double(), rtol=1e-10, atol=1e-12)[-1]
        theirs, their_calls = error_and_calls(torchdiffeq.odeint, method)
        with pytest.warns(sa.ResolutionWarning, match="below what func's values resolve"):
            ours, our_calls = error_and_calls(sa.odeint, method)
        # Both are off by what rounding f's values adds, which depends on where it was called.
        assert ours < 2.5 * theirs + torch.finfo(dtype).eps / 4
        assert our_calls < their_calls / 2

    def test_is_as_ever_where_func_is_as_precise_as_y(self):
        y0 = start().abs()

        def grid(on):
            with autocast(torch.bfloat16, enabled=on):
                return sa.solve(lambda t, y: -y * y, y0, T, rtol=1e-5, atol=1e-6).grid.h

        assert torch.equal(grid(True), grid(False))

    @every_half
    def test_allows_no_more_than_each_part_resolves(self, dtype):
        """A part in float32 is solved to its own tolerance beside one in half precision."""
        y0 = (start(), torch.ones(5))

        def func(t, y):
            with autocast(dtype):
                return Net()(t, y[0]), -3 * y[1]

        with pytest.warns(sa.ResolutionWarning):
            ys = sa.odeint(func, y0, T, rtol=1e-6, atol=1e-8)
        assert [part.dtype for part in ys] == [torch.float32, torch.float32]
        # The norm is over all components, of the first part 32 of which only the rounding counts.
        assert relative_error(ys[1][-1], math.exp(-3.0) * torch.ones(5)) < 1e-4

    def test_does_not_warn_of_tolerances_that_func_resolves(self):
        with autocast(torch.bfloat16):
            sa.odeint(Net(), start(), T, rtol=1e-3, atol=1e-3)
