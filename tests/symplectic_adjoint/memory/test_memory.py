"""Memory in exact bytes of the allocator: what is kept between the passes, and the peak of the backward pass."""

import gc

import pytest
import torch
from torch import nn

from symplectic_adjoint import METHODS, Revolve, Symplectic, odeint
from symplectic_adjoint import watch_memory as watch
from tests.gradients import EXACT, STANDARD

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
BATCH, SIZE, WIDTH = 64, 8, 256
STATE_BYTES = BATCH * SIZE * 8
SKETCH_BYTES = 64  # eight sums in place of the last state, by which a backward pass recognises it
EXACT_FUNCTIONS = [name for name in EXACT if name != "backprop"]


class WideNet(nn.Module):
    """A field whose graph is large: 32 states for the hidden layer of one f call, twice that while it runs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(SIZE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, SIZE)).double()

    def forward(self, t, y):
        return self.net(y)


def fixed_solve(func, y0, steps, method, gradient):
    return odeint(func, y0, T, method=method, options={"step_size": 1.0 / steps}, gradient=gradient)


def peak_bytes(steps, method, gradient):
    """Return the highest number of live bytes in a forward and a backward pass, without the outputs."""
    func, y0 = WideNet(), torch.randn(BATCH, SIZE, dtype=torch.float64)
    held = {}

    def forward():
        held["ys"] = fixed_solve(func, y0, steps, method, gradient)

    def backward():
        held.pop("ys").sum().backward()

    gc.collect()
    return max(phase.peak_bytes for phase in watch("cpu", forward, backward))


def kept_bytes(steps, method, gradient, field=WideNet):
    """Return the live bytes between the passes, without the two outputs and the sketch of the last state."""
    func, y0 = field(), torch.randn(BATCH, SIZE, dtype=torch.float64)
    held = []
    (traffic,) = watch("cpu", lambda: held.append(fixed_solve(func, y0, steps, method, gradient)))
    return traffic.left_bytes - 2 * STATE_BYTES - SKETCH_BYTES


@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5", "dopri8"])
@pytest.mark.parametrize("gradient", ["baseline", "aca", "symplectic", "stages", "revolve"])
def test_the_states_kept_between_the_passes_are_those_of_the_formula(gradient, method):
    N, s = 12, METHODS[method].stages
    states = {
        "baseline": 0,
        "aca": N - 1,  # y0 belongs to the caller
        "symplectic": N - 1 + s,  # and the stages of the last step
        "stages": N * s,
        "revolve": N - 1 + s,  # room for all of them
    }
    assert kept_bytes(N, method, gradient) == states[gradient] * STATE_BYTES


class EnablingNet(WideNet):
    """A field that enables grad, as code for energies and traces does, and leaves it enabled."""

    def forward(self, t, y):
        torch.set_grad_enabled(True)
        return super().forward(t, y)


@pytest.mark.parametrize("gradient", EXACT_FUNCTIONS)
def test_func_that_enables_grad_keeps_no_graph(gradient):
    assert kept_bytes(12, "rk4", gradient, EnablingNet) == kept_bytes(12, "rk4", gradient)


def test_the_continuous_adjoint_keeps_only_the_outputs():
    assert kept_bytes(12, "rk4", "continuous") == SKETCH_BYTES  # that of f at the start


@pytest.mark.parametrize("room", [1, 4])
def test_revolve_keeps_within_its_budget_for_any_number_of_steps(room):
    s = METHODS["rk4"].stages
    few, many = (peak_bytes(steps, "rk4", Revolve(room)) for steps in (10, 60))
    assert few == many
    # Room for `room` starts, the last step's start and stages; symplectic keeps all 60.
    assert kept_bytes(60, "rk4", Revolve(room)) == (room + 1 + s) * STATE_BYTES
    assert peak_bytes(60, "rk4", "symplectic") - many == pytest.approx((59 - room) * STATE_BYTES, abs=2 * STATE_BYTES)


def test_a_held_graph_takes_the_memory_of_one_graph():
    """WideNet's graph takes 32 states for the hidden activation, and one for the value of f."""
    none, eight, nine = (kept_bytes(20, "rk4", Symplectic(graphs=number)) for number in (0, 8, 9))
    assert eight - none == pytest.approx(8 * (nine - eight), rel=0.05)
    assert 32 * STATE_BYTES <= nine - eight <= 36 * STATE_BYTES


def test_tensors_on_disk_take_no_memory():
    s = METHODS["rk4"].stages
    assert kept_bytes(60, "rk4", Symplectic(offload="disk")) == s * STATE_BYTES  # the stages of the last step
    assert kept_bytes(60, "rk4", Symplectic(keep="stages", offload="disk")) == 0
    assert kept_bytes(60, "rk4", Revolve(4, offload="disk")) == (1 + s) * STATE_BYTES


@pytest.mark.parametrize("gradient", ["aca", "symplectic"])
def test_memory_grows_by_one_state_a_step(gradient):
    growth = peak_bytes(60, "rk4", gradient) - peak_bytes(20, "rk4", gradient)
    # The allocator rounds each tensor up to 64 bytes.
    assert growth == pytest.approx(40 * STATE_BYTES, rel=0.01)


def test_memory_grows_by_s_states_a_step_if_stages_are_kept():
    growth = peak_bytes(60, "rk4", "stages") - peak_bytes(20, "rk4", "stages")
    assert growth == pytest.approx(40 * 4 * STATE_BYTES, rel=0.01)


def test_symplectic_holds_the_graph_of_one_f_for_any_number_of_stages():
    few, many = (peak_bytes(4, method, "symplectic") for method in ("midpoint", "dopri8"))
    # 11 more stages add their states, but not their graphs of 32 states each.
    assert many - few < 14 * STATE_BYTES
    few, many = (peak_bytes(4, method, "aca") for method in ("midpoint", "dopri8"))
    assert many - few > 11 * 30 * STATE_BYTES


@pytest.mark.parametrize("method", ["rk4", "dopri5", "dopri8"])
def test_the_peaks_are_ordered_as_the_formulas_are(method):
    peaks = [peak_bytes(10, method, gradient) for gradient in ("symplectic", "aca", "baseline")]
    assert peaks == sorted(peaks) and peaks[0] < 0.7 * peaks[1] < 0.7 * peaks[2]


@pytest.mark.parametrize("gradient", STANDARD)
def test_iterations_leak_no_tensors(gradient):
    func, y0 = WideNet(), torch.randn(BATCH, SIZE, dtype=torch.float64)

    def live():
        return sum(1 for x in gc.get_objects() if issubclass(type(x), torch.Tensor))

    def iterate(n):
        for _ in range(n):
            fixed_solve(func, y0, 5, "rk4", gradient).sum().backward()
            fixed_solve(func, y0, 5, "rk4", gradient)  # without a backward pass

    iterate(2)
    gc.collect()
    gc.disable()  # tensors must be freed without the collector
    try:
        before = live()
        iterate(20)
        assert live() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("gradient", STANDARD)
def test_nothing_is_kept_under_no_grad(gradient):
    func, y0 = WideNet(), torch.randn(BATCH, SIZE, dtype=torch.float64)
    held = []

    def forward():
        with torch.no_grad():
            held.append(fixed_solve(func, y0, 50, "rk4", gradient))

    (traffic,) = watch("cpu", forward)
    # Two outputs, four stages, the current state and one f call.
    assert traffic.left_bytes == 2 * STATE_BYTES
    assert traffic.peak_bytes < (2 + 4 + 2 + 64 + 2) * STATE_BYTES


@pytest.mark.parametrize("gradient", EXACT_FUNCTIONS)
def test_a_closure_over_a_module_takes_as_much_memory_as_the_module(gradient):
    def peak(close_over):
        net, y0 = WideNet(), torch.randn(BATCH, SIZE, dtype=torch.float64)
        func = (lambda t, y: net(t, y)) if close_over else net
        held = []

        def forward():
            held.append(
                odeint(func, y0, T, method="rk4", options={"step_size": 0.25}, params=tuple(net.parameters()),
                       gradient=gradient)
            )  # fmt: skip

        gc.collect()
        return max(phase.peak_bytes for phase in watch("cpu", forward, lambda: held.pop().sum().backward()))

    peak(True)
    assert peak(True) == peak(False)
