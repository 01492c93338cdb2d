"""Gradients under autocast on a card, in bfloat16 and float16, and with a GradScaler."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field import host_reads
from tests.gpu.problems import DEVICE
from tests.oracle import relative_error, replay

T = torch.tensor([0.0, 0.4, 1.0])
FIXED = {"step_size": 0.1}
every_gradient = pytest.mark.parametrize("gradient", list(sa.GRADIENTS))
recomputing = pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "backprop"])
every_half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


class Net(nn.Module):
    def __init__(self, *, by=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(64, 128), nn.Linear(128, 64)
        self.by = by
        self.to(DEVICE)

    def forward(self, t, y):
        hidden = torch.tanh(self.inner(y) * torch.cos(t))
        return self.outer(hidden / self.by / self.by * self.by * self.by) - y


def start(dtype=torch.float32):
    y0 = torch.randn(256, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return y0.to(DEVICE, dtype).requires_grad_()


def loss_of(ys):
    return ys.square().mean()


def solution(gradient, dtype, *, by=1.0, method="rk4", options=FIXED, **keywords):
    func, y0 = Net(by=by), start()
    method = None if gradient == "mali" else method
    with torch.autocast(DEVICE.type, dtype=dtype):
        found = sa.solve(func, y0, T, gradient=gradient, method=method, options=options, **keywords)
    assert found.ys.dtype == torch.float32
    return found, [y0, *func.parameters()]


def truth(found, gradient, method="rk4"):
    func, y0 = Net().double(), start(torch.float64)
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", 0.999)}.get(gradient)
    tableau = sa.GRADIENTS[gradient].own_tableau or sa.METHODS[method]
    ys = replay(func, tableau, found.grid, y0, T.double(), pair)
    return torch.autograd.grad(loss_of(ys), [y0, *func.parameters()])


def worst(bars, exact, scale=1.0):
    return max(relative_error(a.double() / scale, b) for a, b in zip(bars, exact, strict=True))


def level(dtype):
    """Return a bound for some ten rounded operations a call, each off by up to eps / 2, independently."""
    return 2 * torch.finfo(dtype).eps


@every_half
@every_gradient
def test_gradients_are_near_to_float64_with_fixed_steps(table, gradient, dtype):
    found, leaves = solution(gradient, dtype)
    # A mean over 49,152 entries: below what float16 holds from the start, so autograd's own needs a loss scaled up.
    scale = 2.0**16 if gradient == "backprop" else 1.0
    bars = torch.autograd.grad(loss_of(found.ys) * scale, leaves)
    name = f"{dtype}, fixed steps: error".replace("torch.", "")
    table.at_most("autocast", name, worst(bars, truth(found, gradient), scale), level(dtype))


@every_half
@every_gradient
def test_gradients_are_near_to_float64_with_adaptive_steps(table, gradient, dtype):
    found, leaves = solution(gradient, dtype, method="dopri5", options=None, rtol=1e-3, atol=1e-3)
    scale = 2.0**16 if gradient == "backprop" else 1.0
    bars = torch.autograd.grad(loss_of(found.ys) * scale, leaves)
    bound = level(dtype) if sa.GRADIENTS[gradient].exact else 2e-2  # its second solve has an error of its own
    kind = "exact" if sa.GRADIENTS[gradient].exact else "continuous"
    name = f"{dtype}, adaptive steps, {kind}: error".replace("torch.", "")
    table.at_most("autocast", name, worst(bars, truth(found, gradient, "dopri5"), scale), bound)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**60])
@recomputing
def test_neither_small_nor_large_losses_matter_in_float16(gradient, scale):
    found, leaves = solution(gradient, torch.float16)
    bars = torch.autograd.grad(loss_of(found.ys) * scale, leaves)
    bound = level(torch.float16) if sa.GRADIENTS[gradient].exact else 2e-2
    assert worst(bars, truth(found, gradient), scale) < bound


@pytest.mark.parametrize("gradient", ["symplectic", "aca", "stages", "revolve"])
def test_an_overflow_repeats_the_sweep_unless_a_stream_is_captured(gradient, monkeypatch):
    found, leaves = solution(gradient, torch.float16)
    torch.autograd.grad(loss_of(found.ys), leaves)
    once = found.stats.vjps_backward
    found, leaves = solution(gradient, torch.float16, by=2.0**10)
    bars = torch.autograd.grad(loss_of(found.ys), leaves)
    assert found.stats.vjps_backward == 2 * once and all(bar.isfinite().all() for bar in bars)
    found, leaves = solution(gradient, torch.float16, by=2.0**10)
    monkeypatch.setattr(host_reads, "CAPTURABLE", frozenset({DEVICE.type}))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    bars = torch.autograd.grad(loss_of(found.ys), leaves)
    assert found.stats.vjps_backward == once and not all(bar.isfinite().all() for bar in bars)


class Neighbours(nn.Module):
    """Coupled entries, by operations that no autocast casts: all that it could round is the library's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (nn.Parameter(torch.randn(64)) for _ in range(2))
        self.to(DEVICE)

    def forward(self, t, y):
        return torch.tanh(self.a * y.roll(1, -1)) * torch.cos(t) - torch.sin(self.b) * y


@every_half
@pytest.mark.parametrize("capture", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize(
    ("method", "options"), [("rk4", FIXED), ("dopri5", None), ("dopri5", {"outputs": "interpolate"})]
)
@pytest.mark.parametrize("gradient", [name for name, gradient in sa.GRADIENTS.items() if gradient.captures])
def test_the_librarys_own_sums_are_in_float32(table, gradient, method, options, capture, dtype):
    func, y0, t = Neighbours(), start(), T.clone().requires_grad_()
    given = {"gradient": gradient, "method": method, "options": options, "rtol": 1e-4, "atol": 1e-4}

    def found(*, autocast, **keywords):
        with torch.autocast(DEVICE.type, dtype=dtype, enabled=autocast):
            ys = sa.odeint(func, y0, t, **given, **keywords)
        return [ys.detach(), *torch.autograd.grad(loss_of(ys), [y0, t, *func.parameters()])]

    exact = found(autocast=False)
    got = [found(autocast=True, capture=capture) for _ in range(2)][-1]  # recorded, then replayed
    # Some hundred operations of 6e-8, and steps chosen from values that differ by as much.
    table.at_most("autocast", "the library's own sums, from those without autocast", worst(got, exact), 1e-4)


@recomputing
def test_a_grad_scaler_trains(table, gradient):
    func, y0 = Net(), start().detach()
    optimizer = torch.optim.SGD(func.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**40, backoff_factor=2.0**-12)
    method, losses = None if gradient == "mali" else "rk4", []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, dtype=torch.float16):
            ys = sa.odeint(func, y0, T, method=method, options=FIXED, gradient=gradient)
            loss = nn.functional.linear(ys[-1], torch.eye(64, device=DEVICE)).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    table.add("autocast", "GradScaler, 20 steps: loss over the first", losses[-1] / losses[0], 1.0)
    assert losses[-1] < losses[0]
    assert all(p.isfinite().all() for p in func.parameters())
