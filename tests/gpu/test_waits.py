"""How often the host waits for the card, by torch.cuda.set_sync_debug_mode. The CPU's tests pretend a card."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.gpu.problems import DEVICE, EXACT, FIXED, MANY, REVERSED, Mlp, T, keywords_of, loss_of, start
from tests.gpu.waits import counted

pytestmark = pytest.mark.usefixtures("card")


def waits_of(gradient, t=T, **keywords):
    """Return the number of waits of a solve and of its gradient, and the solve's stats."""
    net, y0 = Mlp(), start()
    keywords = keywords_of(gradient, **keywords)
    loss_of(sa.odeint(net, y0, t, **keywords)).backward()  # the first use of a kernel may wait
    torch.cuda.synchronize()
    with counted() as forward:
        solution = sa.solve(net, y0, t, **keywords)
        loss = loss_of(solution.ys)
    with counted() as backward:
        loss.backward()
    return len(forward), len(backward), solution.stats


@pytest.mark.parametrize("gradient", EXACT)
def test_fixed_steps_wait_once_in_each_pass(table, gradient):
    forward, backward, _ = waits_of(gradient, options=FIXED)
    table.at_most("waits", "fixed steps, solve and gradient", forward + backward, 2)
    assert forward == 1 and backward == (gradient != "backprop")


@pytest.mark.parametrize("gradient", REVERSED)
def test_a_reversal_is_checked_with_one_more(table, gradient):
    forward, backward, _ = waits_of(gradient, options=FIXED)
    table.at_most("waits", "reversed fixed steps, solve and gradient", forward + backward, 3)


@pytest.mark.parametrize("gradient", EXACT)
def test_times_on_the_card_are_read_once(table, gradient):
    forward, backward, _ = waits_of(gradient, T.to(DEVICE), options=FIXED)
    table.at_most("waits", "fixed steps, t on the card", forward + backward, 3)


@pytest.mark.parametrize("gradient", EXACT)
def test_many_outputs_inside_steps_add_none(table, gradient):
    forward, backward, _ = waits_of(gradient, MANY, options=FIXED)
    table.at_most("waits", "fixed steps, many outputs", forward + backward, 2)


@pytest.mark.parametrize("gradient", EXACT)
def test_adaptive_steps_wait_once_a_step(table, gradient):
    """Once more for the size of the first, and once in the backward pass."""
    forward, backward, stats = waits_of(gradient, method="dopri5", rtol=1e-5, atol=1e-5)
    more = forward + backward - stats.accepted - stats.rejected
    table.at_most("waits", "adaptive steps, beyond one a step", more, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_adds_none(table, dtype):
    with torch.autocast(DEVICE.type, dtype=dtype):
        forward, backward, _ = waits_of("symplectic", options=FIXED)
    table.at_most("waits", f"fixed steps, autocast {dtype}".replace("torch.", ""), forward + backward, 2)
