"""The bytes that a solve and its gradient hold on a card, against the formulas in N, s, D and A."""

import pytest
import torch

import symplectic_adjoint as sa
from tests.gpu.problems import DEVICE, EXACT, Mlp, T, gradients, keywords_of, start, worst

ENDS = T[[0, -1]]
BATCH, SIZE, WIDTH = 1024, 64, 128
D = BATCH * SIZE * 4
"""Bytes of a state: a multiple of the allocator's 512."""
S = 4
"""Stages of rk4."""
pytestmark = pytest.mark.usefixtures("card")


def network():
    return Mlp(SIZE, WIDTH, 3)


def peak_bytes(work):
    """Return the highest number of bytes that some work holds above what was held before."""
    work()  # cuBLAS keeps a workspace from its first use on
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def peak_of(gradient, steps, net=None, **keywords):
    net, y0 = net or network(), start(BATCH, SIZE)
    options = {"step_size": 1.0 / steps}
    return peak_bytes(lambda: gradients(net, y0, ENDS, **keywords_of(gradient, options=options, **keywords)))


def call_bytes():
    """Return the bytes of the graph of one f call (A), its state included, and the peak of the call and its VJP."""
    net, y0, t = network(), start(BATCH, SIZE), torch.tensor(0.5, device=DEVICE)

    def call():
        k = net(t, y0)
        return torch.autograd.grad(k, [y0, *net.parameters()], torch.ones_like(k))

    peak = peak_bytes(call)
    before = torch.cuda.memory_allocated()
    k = net(t, y0)
    graph = torch.cuda.memory_allocated() - before - k.numel() * k.element_size() + D
    del k
    return graph, peak


SLOPES = {"symplectic": D, "aca": D, "stages": S * D, "revolve": 0, "mali": 0, "reversible": 0}
SLOPES |= {"baseline": None, "backprop": None}
"""Bytes that one more step holds; None for the graph of s f calls."""


@pytest.mark.parametrize("gradient", SLOPES)
def test_bytes_that_one_more_step_holds(table, gradient):
    """Exactly: the allocator gives the same blocks for the rest.

    From 64 steps to 128, beyond revolve's 16 states: times are moved to the card 64 steps at once.
    """
    slope = (peak_of(gradient, 128) - peak_of(gradient, 64)) / 64
    graph, _ = call_bytes()
    if SLOPES[gradient] is None:  # each f call saves its state besides, and some scalars of 512 bytes
        table.at_most("memory", f"{gradient}: bytes a step over s A", slope / (S * graph), 1.1)
    else:
        table.add("memory", f"{gradient}: bytes a step", slope, float(SLOPES[gradient]))
        assert slope == SLOPES[gradient]


STATES = {"symplectic": 40 + S, "stages": 40 * S, "revolve": 17 + S, "mali": 4, "reversible": 6 + S}


@pytest.mark.parametrize(("gradient", "states"), STATES.items())
def test_bytes_in_all(table, gradient, states):
    """At most the formula: states of D bytes, one f call with its VJP, theta's sums, ys and the cotangents."""
    net = network()
    theta = sum(p.numel() * p.element_size() for p in net.parameters())
    _, call = call_bytes()
    outputs, cotangents = 2 * D, 4 * D  # ys, its cotangent, that of y0 and lam
    formula = states * D + call + theta + outputs + cotangents
    table.at_most("memory", f"{gradient}, 40 steps: peak over formula", peak_of(gradient, 40, net) / formula, 1.1)


OFFLOADED = [
    sa.Symplectic(offload="cpu"),
    sa.Symplectic(keep="stages", offload="cpu"),
    sa.Symplectic(offload="disk"),
    sa.Revolve(offload="cpu"),
]


@pytest.mark.parametrize("gradient", OFFLOADED, ids=str)
def test_offloaded_steps_hold_nothing_on_the_card(table, gradient):
    slope = (peak_of(gradient, 128) - peak_of(gradient, 64)) / 64
    table.at_most("offload", f"{gradient}: bytes a step", slope, 0)
    net, y0, options = network(), start(BATCH, SIZE), {"step_size": 0.1}
    bars = gradients(net, y0, **keywords_of(gradient, options=options))
    exact = gradients(net, y0, **keywords_of("symplectic", options=options))
    assert worst(bars, exact) == 0.0  # the same numbers, from elsewhere


@pytest.mark.parametrize("budget", ["7 MiB", "12 MiB", "48 MiB", "1 GiB"])
def test_auto_stays_within_its_budget(table, budget):
    net, y0 = network(), start(BATCH, SIZE)
    keywords = {"gradient": "auto", "memory_budget": budget, "options": {"step_size": 0.025}, "method": "rk4"}
    limit = float(budget.split()[0]) * 2 ** {"MiB": 20, "GiB": 30}[budget.split()[1]]
    peak = peak_bytes(lambda: gradients(net, y0, ENDS, **keywords))
    table.at_most("auto", f"{budget}: peak over budget", peak / limit, 1.0)
    exact = gradients(net, y0, ENDS, **{**keywords, "gradient": "backprop", "memory_budget": None})
    assert worst(gradients(net, y0, ENDS, **keywords), exact) < 1e-4  # rounding, as in test_exactness


def test_auto_without_a_budget_takes_what_the_card_has_free(table):
    net, y0 = network(), start(BATCH, SIZE)
    solution = sa.solve(net, y0, ENDS, gradient="auto", options={"step_size": 0.1}, method="rk4")
    free, total = torch.cuda.mem_get_info()
    table.add("auto", "budget without memory_budget, of the card's bytes", solution.stats.choice.budget_bytes / total)
    assert 0.5 * free < solution.stats.choice.budget_bytes < total and solution.stats.choice.graphs == 10 * S


@pytest.mark.parametrize("gradient", EXACT)
def test_nothing_is_left_on_the_card(table, gradient):
    net, y0 = network(), start(BATCH, SIZE)
    for _ in range(2):
        before = torch.cuda.memory_allocated()
        gradients(net, y0, ENDS, **keywords_of(gradient, options={"step_size": 0.1}))
        torch.cuda.synchronize()
    table.at_most("memory", "bytes left after a gradient", torch.cuda.memory_allocated() - before, 0)
