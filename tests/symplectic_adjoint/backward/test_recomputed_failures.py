"""The outputs that a failed solve reached are kept by repeating its steps, with the same noise and statistics."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.backward.recomputation import (
    APPROXIMATE,
    LOOSE,
    ROUNDING,
    Field,
    T,
    every_gradient,
    gradients,
    solve,
)


class Breaking(Field):
    """Not a number after a time."""

    def forward(self, t, y):
        k = super().forward(t, y)
        return k if t < 0.65 else k * float("nan")


@pytest.mark.parametrize("grid", ["adaptive", "fixed"])
class TestASolveThatFailed:
    """The outputs that it reached are kept by going through its steps again: as they were."""

    GRIDS = {  # noqa: RUF012
        "adaptive": {**LOOSE, "options": {"min_step": 1e-3}},
        "fixed": {"method": "rk4", "options": {"step_size": 0.1}},
    }

    def solved(self, func, grid, gradient, on_failure="return"):
        return solve(func, gradient=gradient, seed=3, on_failure=on_failure, **self.GRIDS[grid])

    @every_gradient
    def test_has_the_outputs_of_its_noise(self, grid, gradient):
        healthy = self.solved(Field(nn.Dropout(0.4)), grid, gradient)
        ys = self.solved(Breaking(nn.Dropout(0.4)), grid, gradient)
        assert torch.equal(ys[:2], healthy[:2]) and torch.isnan(ys[2]).all()

    @every_gradient
    def test_has_the_gradient_of_its_noise(self, grid, gradient):
        def solution(gradient, cls):
            func = cls(nn.Dropout(0.4))
            return self.solved(func, grid, gradient)[:2], func

        got, expected = gradients(*solution(gradient, Breaking)), gradients(*solution("backprop", Field))
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound

    @every_gradient
    def test_advances_the_generator_by_one_call(self, grid, gradient):
        func = Breaking(nn.Dropout(0.4))
        self.solved(func, grid, gradient)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        func(T[0], start())
        assert torch.equal(torch.get_rng_state(), after)

    @every_gradient
    def test_moves_statistics_once(self, grid, gradient):
        raised, returned = (Breaking(nn.BatchNorm1d(3).double()) for _ in range(2))
        with pytest.raises(sa.NonFiniteError):
            self.solved(raised, grid, gradient, on_failure="raise")
        self.solved(returned, grid, gradient)
        for a, b in zip(returned.buffers(), raised.buffers(), strict=True):
            assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())

    @every_gradient
    def test_names_the_component_that_its_noise_made_nan(self, grid, gradient):
        drawn = []

        def func(t, y):
            drawn.append(int(torch.randint(12, ())))
            k = -y.flatten()
            k[drawn[-1]] *= 1.0 if t < 0.65 else float("nan")
            return k.reshape(4, 3)

        with pytest.raises(sa.NonFiniteError) as caught:
            self.solved(func, grid, gradient, on_failure="raise")
        assert caught.value.component == (drawn[0] // 3, drawn[0] % 3)
        assert len(drawn) > 10 and set(drawn) == {drawn[0]}
