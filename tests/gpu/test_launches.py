"""How many kernels a solve and its gradient launch, over those of func's own calls."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import symplectic_adjoint as sa
from tests.gpu.problems import FIXED, Mlp, T, keywords_of, loss_of, start

pytestmark = pytest.mark.usefixtures("card")


def launches(work):
    """Return the numbers of kernels launched and of copies made."""
    work()  # what is loaded and tuned at the first call is not counted
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    events = found.key_averages()
    kernels = sum(x.count for x in events if "LaunchKernel" in x.key)
    return kernels, sum(x.count for x in events if x.key.startswith(("cudaMemcpy", "Memcpy")))


@pytest.mark.parametrize(
    ("what", "keywords"),
    [
        ("rk4, 10 steps", keywords_of("symplectic", options=FIXED)),
        ("rk4, 10 steps, stages", keywords_of("stages", options=FIXED)),
        ("rk4, 10 steps, backprop", keywords_of("backprop", options=FIXED)),
        ("dopri5, adaptive", keywords_of("symplectic", "dopri5", rtol=1e-5, atol=1e-5)),
    ],
)
def test_most_launches_are_those_of_func(table, what, keywords):
    """Sums of stages, of cotangents and of parameters are the rest."""
    net, y0, t = Mlp(layers=4), start(), T[[0, -1]]
    time, stats = torch.tensor(0.5, device=y0.device), []

    def solve():
        solution = sa.solve(net, y0, t, **keywords)
        loss_of(solution.ys).backward()
        stats.append(solution.stats)

    def call():
        with torch.no_grad():
            net(time, y0)

    def vjp():
        k = net(time, y0)
        torch.autograd.grad(k, [y0, *net.parameters()], torch.ones_like(k))

    kernels, copies = launches(solve)
    calls = stats[-1].f_calls_forward + stats[-1].f_calls_backward
    vjps = stats[-1].vjps_backward
    (of_call, _), (of_vjp, _) = launches(call), launches(vjp)
    own = (calls - vjps) * of_call + vjps * of_vjp
    table.add("launches", f"{what}: copies", copies)
    table.add("launches", f"{what}: of func's own calls", own)
    # Measured on one H100 before this test: 2,965 for ten steps of rk4, some 1.5 times func's own.
    table.at_most("launches", f"{what}: all", kernels, 2 * own)
