"""How often the host waits for a card in a solve and its gradient, on a card that is pretended."""

import re

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import arguments
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start
from tests.gradients import EXACT, OWN_STEPS, taking_turns
from tests.pretend_card import PretendCard, on_card

T = torch.tensor([0.0, 0.35, 0.8, 1.0], dtype=torch.float64)
EMBEDDED = [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive]
FIXED = {"step_size": 0.25}


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr(arguments, "require_values", lambda y0, t: None)  # the device of the card is torch's "meta"
    with PretendCard() as card:
        yield card


class Waits:
    """One solve and its gradient on the card: the waits of each, and the steps tried."""

    def __init__(self, card, gradient, t=T, **keywords):
        net, y0 = on_card(SmallNet()), on_card(start().requires_grad_())
        card.waits.clear()
        if gradient == "mali":
            keywords.pop("method", None)
        solution = sa.solve(net, y0, t, gradient=gradient, **keywords)
        self.forward = list(card.waits)
        card.waits.clear()
        solution.ys.square().sum().backward()
        self.backward = list(card.waits)
        self.steps = solution.stats.accepted + solution.stats.rejected
        self.bars = [x.value for x in (y0.grad, *(p.grad for p in net.parameters() if p.grad is not None))]


@pytest.mark.parametrize(("gradient", "method"), taking_turns(EXPLICIT_METHODS, EXACT))
def test_a_fixed_step_solve_waits_once_and_its_gradient_once(card, gradient, method):
    """For the end's finiteness, and for the comparison of what was recomputed, of which backprop has none."""
    found = Waits(card, gradient, method=method, options=FIXED)
    assert len(found.forward) == 1 and len(found.backward) == (gradient != "backprop")


@pytest.mark.parametrize("gradient", OWN_STEPS)
def test_a_reversed_solve_waits_once_more_for_its_reversal(card, gradient):
    found = Waits(card, gradient, method="rk4", options=FIXED)
    assert len(found.forward) == 1 and len(found.backward) == 2


@pytest.mark.parametrize("gradient", EXACT)
def test_times_on_the_card_are_one_wait_more(card, gradient):
    found = Waits(card, gradient, on_card(T), method="rk4", options=FIXED)
    assert len(found.forward) == 2 and len(found.backward) == (gradient != "backprop")


@pytest.mark.parametrize(("gradient", "method"), taking_turns(EMBEDDED, EXACT))
def test_an_adaptive_solve_waits_once_a_step(card, gradient, method):
    """And once for the size of the first step, unless that is given."""
    for options, more in ({"first_step": 0.1}, 0), ({}, 1):
        found = Waits(card, gradient, method=method, rtol=1e-3, atol=1e-3, options=options)
        assert len(found.forward) == found.steps + more and len(found.backward) == (gradient != "backprop")


@pytest.mark.parametrize("place", [lambda x: x, on_card], ids=["t on the host", "t on the card"])
@pytest.mark.parametrize("gradient", ["aca", "symplectic", "stages", "revolve"])
def test_the_gradient_of_times_is_copied_to_the_host_at_once(card, gradient, place):
    """For backprop and baseline times are on a graph, and on the host."""
    t = place(T.clone()).requires_grad_()
    found = Waits(card, gradient, t, method="rk4", options=FIXED)
    assert len(found.backward) == 1 + (t.device.type == "cpu")


@pytest.mark.parametrize("gradient", EXACT)
def test_repeated_times_cost_no_wait(card, gradient):
    repeated = T.repeat_interleave(2)
    found = Waits(card, gradient, repeated, method="rk4", options=FIXED)
    assert len(found.forward) == 1 and len(found.backward) == (gradient != "backprop")


@pytest.mark.parametrize("gradient", EXACT)
def test_a_float16_gradient_waits_as_often(card, gradient):
    """Its overflow is read with the comparison."""

    class Half(SmallNet):
        def forward(self, t, y):
            return super().forward(t, y).half()

    net, y0 = on_card(Half()), on_card(start().requires_grad_())
    ys = sa.odeint(net, y0, T, method="rk4", options=FIXED, gradient=gradient)
    card.waits.clear()
    ys.sum().backward()
    assert len(card.waits) == (gradient != "backprop")


@pytest.mark.parametrize("gradient", ["symplectic", "backprop", "mali", "reversible"])
@pytest.mark.parametrize("options", [FIXED, {}, {"first_step": 0.1}], ids=["fixed", "adaptive", "first step given"])
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_a_start_that_is_not_finite_is_named(card, gradient, options, bad):
    y0 = start()
    y0[2, 1] = bad
    method = {} if gradient == "mali" else {"method": "dopri5"}
    with pytest.raises(sa.NonFiniteError, match=re.escape(f"y0 is not finite: component (2, 1) is {bad}")):
        sa.odeint(on_card(SmallNet()), on_card(y0), T, gradient=gradient, options=options, **method)


@pytest.mark.parametrize("options", [FIXED, {}, {"first_step": 0.1}], ids=["fixed", "adaptive", "first step given"])
def test_it_is_named_where_func_reads_no_state(card, options):
    y0 = start()
    y0[0, 0] = float("nan")
    with pytest.raises(sa.NonFiniteError, match=r"y0 is not finite: component \(0, 0\) is nan"):
        sa.odeint(lambda t, y: torch.ones_like(y), on_card(y0), T, method="dopri5", options=options)


def test_it_is_named_in_a_solve_of_no_step_and_before_an_event_function_sees_it(card):
    y0 = start()
    y0[0, 0] = float("nan")
    with pytest.raises(sa.NonFiniteError, match="y0 is not finite"):
        sa.odeint(on_card(SmallNet()), on_card(y0), T[:1], method="rk4")
    with pytest.raises(sa.NonFiniteError, match="y0 is not finite"):
        sa.odeint(on_card(SmallNet()), on_card(y0), T[:2], event_fn=lambda t, y: y.sum())
