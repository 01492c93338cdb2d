"""capture=True on a card: exact, in few launches, with few waits, and the card is left usable."""

import gc

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.errors import NotCapturable
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gpu.problems import (
    DEVICE,
    FIXED,
    ON_CARD,
    ROUNDING,
    Mlp,
    Potential,
    T,
    gradients,
    keywords_of,
    loss_of,
    oracle,
    start,
    worst,
)
from tests.gpu.waits import counted

CAPTURES = [name for name, gradient in sa.GRADIENTS.items() if gradient.captures]
ADAPTIVE = {"rtol": 1e-5, "atol": 1e-5}


def steps_of(method):
    return ADAPTIVE if sa.METHODS[method].adaptive else {"options": FIXED}


def captured(net, y0, t=T, **keywords):
    solution = sa.solve(net, y0, t, capture=True, **keywords)
    return torch.autograd.grad(loss_of(solution.ys), [y0, *net.parameters()]), solution


CASES = [(gradient, torch.float64) for gradient in CAPTURES] + [("symplectic", torch.float32)]


@pytest.mark.parametrize(("gradient", "dtype"), CASES, ids=str)
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_it_is_autograd_on_the_recorded_grid(table, method, gradient, dtype):
    net, y0 = Mlp(dtype=dtype), start(dtype=dtype)
    for _ in range(2):  # recorded, then replayed
        found, solution = captured(net, y0, gradient=gradient, method=method, **steps_of(method))
    error = worst(found, oracle(net, y0, solution, gradient, method))
    table.at_most("capture", f"relative error in {str(dtype).removeprefix('torch.')}", error, ROUNDING[dtype])
    assert solution.stats.capture.graphs == ON_CARD
    assert solution.stats.capture.recorded == 0
    assert solution.stats.capture.fallback is None


def test_a_func_that_differentiates_inside(table):
    net, y0 = Potential(torch.float64), start(dtype=torch.float64)
    for _ in range(2):
        found, solution = captured(net, y0, method="rk4", options=FIXED)
    assert solution.stats.capture.graphs == ON_CARD
    expected = gradients(net, y0, method="rk4", options=FIXED)
    table.at_most("capture", "a potential, from eager", worst(found, expected), ROUNDING[torch.float64])


def test_times_on_the_card_and_their_gradients(table):
    net, y0, t = Mlp(dtype=torch.float64), start(dtype=torch.float64), T.to(DEVICE).requires_grad_()
    bars = []
    for capture in (True, False):
        ys = sa.odeint(net, y0, t, rtol=1e-6, atol=1e-6, capture=capture)
        bars.append(torch.autograd.grad(loss_of(ys), [y0, t, *net.parameters()]))
    # The two solves choose their steps from values that differ by rounding, amplified by the first step size.
    table.at_most("capture", "with dL/dt, from eager", worst(*bars), 1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_with_a_scaler(table, dtype):
    nets = [Mlp(), Mlp()]
    for net, capture in zip(nets, (True, False), strict=True):
        optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler(DEVICE.type)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, dtype=dtype):
                ys = sa.odeint(net, start(), T[[0, -1]], method="rk4", options=FIXED, capture=capture)
            scaler.scale(loss_of(ys)).backward()
            scaler.step(optimizer)
            scaler.update()
    pairs = zip(*(net.parameters() for net in nets), strict=True)
    off = max(float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs)
    # Three steps of 0.1 with gradients in a precision of 0.8 % (bfloat16).
    table.at_most("capture", f"parameters after training in {dtype}", off, 0.01)


def test_a_training_loop_records_once(table):
    net = Mlp()
    optimizer, recorded = torch.optim.Adam(net.parameters()), []
    for _ in range(5):
        optimizer.zero_grad()
        solution = sa.solve(net, start(), T, rtol=1e-4, atol=1e-4, capture=True)
        loss_of(solution.ys).backward()
        optimizer.step()
        recorded.append(solution.stats.capture.recorded)
    table.add("capture", "programs recorded by the first of five solves", recorded[0])
    assert recorded[0] > 0
    assert recorded[2:] == [0, 0, 0]  # the second may need a step with outputs that the first had none of


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("what", "keywords", "waits"),
    [("rk4, 10 steps", {"method": "rk4", "options": FIXED}, 2), ("dopri5", ADAPTIVE, None)],
)
def test_waits(table, what, keywords, waits):
    net, y0, t = Mlp(), start(), T[[0, -1]]
    for _ in range(2):
        captured(net, y0, t, **keywords)
    with counted() as found:
        _, solution = captured(net, y0, t, **keywords)
    stats = solution.stats
    bound = stats.accepted + stats.rejected + 3 if waits is None else waits
    table.at_most("waits", f"captured {what}", len(found), bound)


@pytest.mark.usefixtures("card")
def test_a_step_is_one_launch(table):
    from tests.gpu.test_launches import launches

    net, y0, t = Mlp(layers=4), start(), T[[0, -1]]
    keywords = keywords_of("symplectic", options=FIXED)
    eager, _ = launches(lambda: gradients(net, y0, t, **keywords))
    few, _ = launches(lambda: gradients(net, y0, t, capture=True, **keywords))
    table.add("launches", "rk4, 10 steps, captured: besides the graphs", few)
    assert few < eager / 10


@pytest.mark.usefixtures("card")
def test_memory_beside_eager(table):
    """Where eager holds 64 MiB or more, at most 1.1 times as much, one theta apart."""
    net, y0, t = Mlp(256, 2048, 3), start(4096, 256), T[[0, -1]]
    theta = sum(p.numel() * p.element_size() for p in net.parameters())
    peaks = {}
    for capture in (False, True):
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved() if capture else torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        gradients(net, y0, t, rtol=1e-4, atol=1e-4, capture=capture)
        torch.cuda.synchronize()
        if capture:
            gradients(net, y0, t, rtol=1e-4, atol=1e-4, capture=True)
        held = torch.cuda.max_memory_allocated() - before if not capture else torch.cuda.memory_reserved() - before
        peaks[capture] = held
    table.add("memory", "eager peak, MiB", peaks[False] / 2**20)
    table.add("memory", "captured: reserved, less one theta, over eager", (peaks[True] - theta) / peaks[False])


def item(t, y):
    return y * (1.0 if t.item() > 0.5 else 2.0)


def synchronizes(t, y):
    torch.cuda.synchronize()
    return -y


def draws(t, y):
    return torch.nn.functional.dropout(y, 0.5)


def copies(t, y):
    return y * torch.tensor(2.0).to(y.device)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("func", [item, synchronizes, draws, copies])
def test_what_cannot_be_captured_leaves_the_card_usable(func):
    y0 = start()
    for _ in range(2):
        with pytest.raises(NotCapturable):
            sa.odeint(func, y0, T, method="rk4", options=FIXED, capture=True)
        torch.randn(1000, 1000, device=DEVICE).sum().item()
        torch.cuda.get_rng_state()
    solution = sa.solve(func, y0, T, method="rk4", options=FIXED, capture="auto")
    assert solution.stats.capture.fallback is not None
    net = Mlp()
    captured(net, y0, method="rk4", options=FIXED)  # and programs of others are recorded as before


@pytest.mark.usefixtures("card")
def test_auto_captures(table):
    net, y0 = Mlp(), start()
    solution = sa.solve(net, y0, T, gradient="auto", memory_budget="64 MiB", capture="auto", **ADAPTIVE)
    found = torch.autograd.grad(loss_of(solution.ys), [y0, *net.parameters()])
    expected = gradients(net, y0, **ADAPTIVE)
    table.at_most("capture", "auto, from eager", worst(found, expected), ROUNDING[torch.float32])
    assert solution.stats.capture.graphs
    assert solution.stats.capture.replayed > 0


@pytest.mark.usefixtures("card")
def test_other_streams_and_many_functions(table):
    net, y0 = Mlp(), start()
    expected = gradients(net, y0, method="rk4", options=FIXED)
    side = torch.cuda.Stream()
    for stream in (side, torch.cuda.default_stream(), side):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found, _ = captured(net, y0, method="rk4", options=FIXED)
        torch.cuda.synchronize()
        table.at_most("capture", "in other streams", worst(found, expected), ROUNDING[torch.float32])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for i in range(60):
        layer = nn.Linear(16, 16, device=DEVICE)
        sa.odeint(
            lambda t, y, layer=layer, i=i: torch.tanh(layer(y)) + i, y0, T, method="rk4", options=FIXED, capture=True
        )
    del layer
    gc.collect()
    table.at_most("capture", "bytes after 60 functions", torch.cuda.memory_allocated() - before, 8 * 2**20)
