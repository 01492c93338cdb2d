"""The transpose of one step by hand: heun2 over [0, 1/2] from y = 1 with f(t, y) = a y + t and a = 2.

k_1 = 2, Y_2 = 2, k_2 = 9/2, y+ = 1 + (k_1 + k_2)/4. All numbers are exact in binary.
"""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa

EXACT = ["symplectic", "stages", "aca", "baseline", "backprop", "revolve", sa.Symplectic(graphs=1)]
every_exact_gradient = pytest.mark.parametrize("gradient", EXACT, ids=str)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, t, y):
        return self.a * y + t


def cotangents(weights, times, gradient, with_time=True):
    """Return dL/dy0, dL/da and dL/dt of L, a weighted sum of the outputs."""
    func = Linear()
    y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(times, dtype=torch.float64, requires_grad=with_time)
    ys = sa.odeint(func, y0, t, method="heun2", options={"step_size": 0.5}, gradient=gradient)
    loss = sum(weight * y.sum() for weight, y in zip(weights, ys, strict=True))
    found = torch.autograd.grad(loss, [y0, func.a, *([t] if with_time else [])])
    return [x.tolist() if x.ndim and len(x) > 1 else x.item() for x in found]


@every_exact_gradient
def test_the_end(gradient):
    # dk_1 = (2, 1, 1) and dk_2 = 2 + 2 dk_1 + ... in y, a and t: (4, 2 + 2/2, 1 + 2/2); dk_2/dh = 2 k_1 + 1.
    # The end of the step is pinned: dL/dt[1] = dy+/dh = (k_1 + k_2)/2 + 5/4, dL/dt[0] = 3/4 - 9/2.
    assert cotangents([0.0, 1.0], [0.0, 0.5], gradient) == [2.5, 1.0, [0.75 - 4.5, 4.5]]
    assert cotangents([0.0, 1.0], [0.0, 0.5], gradient, with_time=False) == [2.5, 1.0]


@every_exact_gradient
def test_an_output_inside(gradient):
    # b(1/2) = (3/8, 1/8): w_2 = 1/16, l_2 = 1/8, w_1 = 3/16 + l_2/2 = 1/4, l_1 = 1/2; tau_i = w_i and
    # da = w_1 y + w_2 Y_2. b'(1/2) = (1/2, 1/2): the output's own time has (k_1 + k_2)/2 = 13/4, which the start loses;
    # h_bar = (k_1 w_1 + k_2 w_2)/h + tau_2 - 13/8 = 0.
    found = cotangents([0.0, 1.0, 0.0], [0.0, 0.25, 0.5], gradient)
    assert found == [1.625, 0.375, [0.3125 - 3.25, 3.25, 0.0]]


@every_exact_gradient
def test_cotangents_of_all_outputs_add_up(gradient):
    found = cotangents([8.0, 4.0, 2.0], [0.0, 0.25, 0.5], gradient)
    assert found == [8 + 4 * 1.625 + 2 * 2.5, 4 * 0.375 + 2 * 1.0, [4 * -2.9375 + 2 * -3.75, 4 * 3.25, 2 * 4.5]]


@every_exact_gradient
def test_two_steps_are_transposed_from_the_last_to_the_first(gradient):
    # With dy+ = (5/2, 1) in (y, a) from y = 1, and from y = 21/8 at t = 1/2: k_1 = 23/4, Y_2 = 11/2,
    # da = (y + Y_2 + 2 y/2)/4 = 43/16, so 5/2 * 1 + 43/16. Shifting the start's time alone: 5/2 (3/4 - 9/2), as a
    # free end moves with the start it is 5/2 3/4 and what the second step has.
    y0_bar, a_bar, (first, last) = cotangents([0.0, 1.0], [0.0, 1.0], gradient)
    assert (y0_bar, a_bar) == (6.25, 2.5 + 2.6875)
    # y+ moves with the end by (k_1 + k_2)/2 + (2 k_1 + 1)/4, where k_2 = 2 (11/2) + 1 = 12.
    assert last == (5.75 + 12) / 2 + 12.5 / 4
    assert first == 2.5 * 0.75 + 0.75 - last


@pytest.mark.parametrize(("with_time", "vjps"), [(False, 4 * 12), (True, 4 * 12 + 1)])
def test_a_stage_without_weight_and_slope_is_not_transposed(with_time, vjps):
    # At the end of a step dop853's dense output is y+, whose slope is f there: none of its three extra stages counts.
    y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=with_time)
    solution = sa.solve(Linear(), y0, t, method="dop853", options={"step_size": 0.25})
    assert solution.grid.output_sigma.tolist() == [0.0, 1.0, 1.0]
    solution.ys.sum().backward()
    assert solution.stats.vjps_backward == vjps
