"""jump_t, step_t and perturb: where steps end, and on which side func is called."""

import pytest
import torch

import symplectic_adjoint as sa

METHODS = ["dopri5", "rk4", "dop853", "dopri8", "euler"]


def forced(t, y):
    """Slope 1 before 0.7 and -3 after: every Runge-Kutta method is exact on both sides."""
    return torch.where(t < 0.7, 1.0, -3.0).to(y.dtype) + 0.0 * y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("method", METHODS)
def test_a_jump_at_an_output_is_found_in_either_dtype(method, direction, dtype):
    """0.7 is a different number in float32. func cannot distinguish the two, so the grid must not either."""
    times, exact = ([0.0, 0.7, 1.0], [0.7, -0.2]) if direction == "forward" else ([1.0, 0.7, 0.0], [0.9, 0.2])
    y0, t, options = torch.zeros(1, dtype=dtype), torch.tensor(times, dtype=dtype), {"jump_t": [0.7]}
    ys = sa.odeint(forced, y0, t, method=method, options=options, rtol=1e-4, atol=1e-4)
    # Sums of a few dozen terms of order 1.
    assert ys[1:, 0].tolist() == pytest.approx(exact, abs=100 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("method", METHODS)
def test_func_is_called_strictly_on_either_side_of_a_jump(method):
    seen = []

    def func(t, y):
        seen.append(t.item())
        return -y

    options = {"jump_t": [0.5], "first_step": 0.1} if sa.METHODS[method].adaptive else {"jump_t": [0.5]}
    sa.odeint(func, torch.ones(1).double(), torch.tensor([0.0, 1.0]), method=method, options=options)
    assert 0.5 not in seen and any(0.5 < t < 0.5 + 1e-15 for t in seen)


def test_jumps_outside_the_span_are_ignored():
    t = torch.tensor([0.0, 1.0])
    plain = sa.solve(forced, torch.zeros(1), t, method="rk4", options={"step_size": 0.1})
    with_others = sa.solve(forced, torch.zeros(1), t, method="rk4", options={"step_size": 0.1, "jump_t": [-1.0, 3.0]})
    assert torch.equal(plain.ys, with_others.ys) and torch.equal(plain.grid.t, with_others.grid.t)


def test_a_jump_restarts_the_step_with_a_new_slope():
    options = {"jump_t": [0.7], "step_size": 0.35}
    solution = sa.solve(forced, torch.zeros(1), torch.tensor([0.0, 1.4]), method="dopri5", options=options)
    assert solution.stats.f_calls_forward == 4 * 6  # a fixed dopri5 step never evaluates its seventh stage
    assert solution.grid.open_end.tolist() == [False, True, False, False]
    assert solution.grid.open_start.tolist() == [False, False, True, False]
    assert solution.grid.pinned_to.tolist() == [-2, -1, -2, 1]


@pytest.mark.parametrize("raw", ["0.5", 0.5, [None], [True], {"a": 0.5}, torch.tensor([0.5 + 1j])])
def test_anything_but_a_list_of_times_is_refused(raw):
    with pytest.raises(TypeError, match="option 'jump_t' must"):
        sa.odeint(forced, torch.zeros(1), torch.tensor([0.0, 1.0]), options={"jump_t": raw})


@pytest.mark.parametrize("raw", [torch.tensor([0.5], requires_grad=True), [torch.tensor(0.5, requires_grad=True)]])
def test_a_jump_that_requires_a_gradient_is_refused(raw):
    with pytest.raises(ValueError, match="times that require a gradient"):
        sa.odeint(forced, torch.zeros(1), torch.tensor([0.0, 1.0]), options={"jump_t": raw})
