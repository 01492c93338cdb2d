"""Options of step control and of grids mean what torchdiffeq's users expect."""

import math

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gradients import FORWARD, and_continuous, taking_turns
from tests.oracle import leaves
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import (
    ADAPTIVE,
    FIXED,
    SHARED,
    Swing,
    growth,
    sine,
    swing_start,
    times,
)


class TestTolerancesOfParts:
    """rtol and atol may have the structure of the state, and tensors of a part's shape in it."""

    def solve(self, gradient="symplectic", **tolerances):
        y0 = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
        return sa.solve(Swing(), y0, times(0.0, 2.0), gradient=gradient, method="dopri5", **tolerances)

    @pytest.mark.parametrize("gradient", FORWARD)
    def test_the_strictest_part_determines_the_steps(self, gradient):
        loose = self.solve(gradient, rtol=1e-3, atol=1e-3).stats.accepted
        tight = self.solve(gradient, rtol=1e-9, atol=1e-9).stats.accepted
        mixed = [self.solve(gradient, rtol=pair, atol=pair).stats.accepted for pair in [(1e-9, 1e-3), (1e-3, 1e-9)]]
        assert loose < max(mixed) <= tight

    @pytest.mark.parametrize("gradient", FORWARD)
    def test_equal_tolerances_of_parts_are_one_tolerance(self, gradient):
        one = self.solve(gradient, rtol=1e-6, atol=1e-8).grid
        of_parts = self.solve(gradient, rtol=(1e-6, 1e-6), atol=[1e-8, 1e-8]).grid
        as_tensors = self.solve(
            gradient, rtol=(torch.tensor(1e-6).double(), torch.full((2, 2), 1e-6).double()), atol=1e-8
        ).grid
        assert torch.equal(of_parts.h, one.h)
        assert torch.allclose(as_tensors.h, one.h, rtol=1e-6)  # products of tensors are rounded elsewhere

    @pytest.mark.parametrize("gradient", FORWARD)
    def test_torchdiffeq_takes_as_many_steps(self, gradient):
        """The error estimate, the norm and the controller are the same; the end of the solve is met differently."""

        class Counting(Swing):
            accepted = 0

            def callback_accept_step(self, t0, y0, dt):
                self.accepted += 1

        func, tolerances = Counting(), {"rtol": (1e-7, 1e-4), "atol": (1e-9, 1e-4)}
        torchdiffeq.odeint(func, swing_start("tuple", torch.float64), times(0.0, 2.0), method="dopri5", **tolerances)
        assert abs(self.solve(gradient, **tolerances).stats.accepted - func.accepted) <= 2

    def test_a_tolerance_of_another_structure_is_refused(self):
        with pytest.raises(TypeError, match="rtol"):
            self.solve(rtol=(1e-3, 1e-3, 1e-3))


@pytest.mark.parametrize("gradient", [*FORWARD, "continuous"])
def test_a_norm_is_passed_the_state_in_its_structure(odeint, gradient):
    def shapes(y0, func):
        seen = set()

        def norm(y):
            seen.add((type(y), tuple(tuple(part.shape) for part in leaves(y))))
            return max(part.abs().max() for part in leaves(y))

        for part in leaves(y0):
            part.requires_grad_()
        ys = odeint(func, y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3, options={"norm": norm})
        sum(part.sum() for part in leaves(ys)).backward()
        return seen

    assert shapes(swing_start("tensor", torch.float64), Swing()) == {(torch.Tensor, ((3,),))}
    assert shapes(swing_start("tuple", torch.float64), Swing()) == {(tuple, ((3,), (2, 2)))}
    state = {"a": torch.ones(3, dtype=torch.float64), "b": torch.ones((), dtype=torch.float64)}
    seen = shapes(state, lambda t, y: {"a": -y["a"], "b": y["b"] * torch.cos(t)})
    assert seen == {(dict, ((3,), ()))}


class Kicked(nn.Module):
    """y' = -y before t = 1, 2 y after it; notes the times of its calls."""

    def __init__(self, at=1.0):
        super().__init__()
        self.at, self.times = at, []

    def forward(self, t, y):
        self.times.append(t.item())
        return torch.where(t < self.at, -1.0, 2.0) * y


@pytest.mark.parametrize(("gradient", "method"), and_continuous(["bosh3", "dopri5", "dopri8"]))
def test_jump_t_saves_f_calls_and_the_solution_is_right(odeint, gradient, method):
    tolerance, bound = 1e-4, 1e-2  # 100 tolerances, as in error_bound

    def solve(options):
        func, y0 = Kicked(), torch.ones(2, dtype=torch.float64, requires_grad=True)
        ys = odeint(func, y0, times(0.0, 2.0), method=method, rtol=tolerance, atol=tolerance, options=options)
        forward = len(func.times)
        ys[-1].sum().backward()
        return forward, len(func.times) - forward, ys[-1], y0.grad

    without, with_jump = solve({}), solve({"jump_t": times(1.0)})
    assert with_jump[0] < without[0]
    assert with_jump[1] <= without[1]  # the backward pass steps over no jump either
    for value in with_jump[2:]:  # y(2) = e^(2 - 1) y0
        assert torch.allclose(value, torch.full((2,), math.e, dtype=torch.float64), rtol=bound)


@pytest.mark.parametrize(("gradient", "method"), and_continuous(SHARED))
def test_func_is_called_on_either_side_of_a_jump_and_never_at_it(gradient, method):
    func, y0 = Kicked(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    options = {"jump_t": [1.0]} | ({} if sa.METHODS[method].adaptive else {"step_size": 0.3})
    solution = sa.solve(
        func, y0, times(0.0, 2.0), method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient
    )
    solution.ys.sum().backward()
    assert 1.0 not in func.times and math.nextafter(1.0, 2.0) in func.times
    # The continuous gradient starts a step there in its backward pass.
    uses_the_end = gradient == "continuous" or 1.0 in [float(c) for c in EXPLICIT_METHODS[method].c]
    assert (math.nextafter(1.0, 0.0) in func.times) == uses_the_end


EITHER_WAY = [("dopri5", 1.0), ("dopri5", -1.0), ("rk38", 1.0), ("rk38", -1.0)]


@pytest.mark.parametrize(
    ("gradient", "method", "direction"),
    sorted({*taking_turns((method, 1.0) for method in SHARED), *taking_turns(EITHER_WAY), *and_continuous(EITHER_WAY)}),
)
def test_step_t_is_stepped_on_in_either_direction_and_any_order(gradient, method, direction):
    wanted = [direction * x for x in (0.7, 0.1, 0.35, 5.0, -1.0)]  # the last two lie outside and are ignored
    options = {"step_t": torch.tensor(wanted)} | ({} if sa.METHODS[method].adaptive else {"step_size": 0.5})
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    solution = sa.solve(
        sine, y0, direction * times(0.0, 1.0), method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient
    )
    starts = solution.grid.t.tolist()
    assert all(float(torch.tensor(x)) in starts for x in wanted[:3])
    assert not solution.grid.open_start.any() and not solution.grid.open_end.any()
    solution.ys[-1].sum().backward()
    expected = torch.full((2,), growth(direction), dtype=torch.float64)
    assert torch.allclose(y0.grad, expected, rtol=0.4 if method == "euler" else 0.05)  # steps of up to 0.3


@pytest.mark.parametrize("option", ["jump_t", "step_t"])
def test_jump_and_step_times_that_require_a_gradient_are_refused(option):
    with pytest.raises(ValueError, match=option):
        sa.odeint(Swing(), torch.ones(2), times(0.0, 1.0), options={option: times(0.5, requires_grad=True)})


@pytest.mark.parametrize(("gradient", "method"), and_continuous(FIXED))
def test_perturb_keeps_func_off_the_grid_points(odeint, gradient, method):
    def called_at(**options):
        func, y0 = Kicked(at=10.0), torch.ones(2, dtype=torch.float64, requires_grad=True)
        odeint(func, y0, times(0.0, 1.0), method=method, options={"step_size": 0.25, **options})[-1].sum().backward()
        return func.times

    grid = {0.0, 0.25, 0.5, 0.75, 1.0}
    assert grid & set(called_at()) and grid & set(called_at(perturb=False))
    perturbed = called_at(perturb=True)
    assert not grid & set(perturbed) and math.nextafter(0.25, 1.0) in perturbed


@pytest.mark.parametrize(("gradient", "method"), taking_turns(FIXED))
def test_a_grid_constructor_is_called_once_with_func_y0_and_t(odeint, gradient, method):
    asked = []

    def constructor(func, y0, t):
        asked.append((func(t[0], y0).shape, y0.shape, t.tolist()))
        return torch.linspace(0.0, 1.0, 5, dtype=torch.float64)

    func, y0, t = Swing(), swing_start("tensor", torch.float64), times(0.0, 0.6, 1.0)
    constructed = odeint(func, y0, t, method=method, options={"grid_constructor": constructor})
    assert asked == [((3,), (3,), [0.0, 0.6, 1.0])]
    assert torch.equal(constructed, odeint(func, y0, t, method=method, options={"step_size": 0.25}))
    theirs = torchdiffeq.odeint(
        func, y0, t, method=SHARED[method], options={"grid_constructor": constructor, "interp": "linear"}
    )
    ours = odeint(func, y0, t, method=method, options={"grid_constructor": constructor, "interp": "linear"})
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13)  # the same steps and the same straight line


@pytest.mark.parametrize(("gradient", "method"), taking_turns(ADAPTIVE))
def test_steps_stay_between_min_step_and_max_step(gradient, method):
    def sizes(tolerance, **options):
        y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
        grid = sa.solve(
            Swing(), y0, times(0.0, 2.0), method=method, rtol=tolerance, atol=tolerance, options=options,
            gradient=gradient,
        ).grid  # fmt: skip
        return grid.h.abs()

    assert sizes(1e-1, max_step=0.08).max() <= 0.08
    coarse = sizes(1e-9, min_step=0.25)
    # Only the last step may be shorter, or longer by what would be left over.
    assert coarse[:-1].min() >= 0.25 * (1 - 1e-12) and len(coarse) <= 8
