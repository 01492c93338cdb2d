"""A func that differentiates inside: autograd runs that in a thread of the card, while func waits for it."""

import os
import subprocess
import sys

import pytest

from tests.clone import ROOT

TIME_LIMIT_S = 60
"""A process that imports torch and solves for some seconds; beyond, one thread waits for the other for ever."""

PROGRAM = """
import torch
import symplectic_adjoint as sa
from tests.gpu.problems import FIXED, Mlp, Potential, T, keywords_of, loss_of, start, worst

class Inner(torch.nn.Module):
    "The same, of the end of a solve of its own, whose backward pass needs the lock of the network."
    def __init__(self):
        super().__init__()
        self.net = Mlp()
    def forward(self, t, y):
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            energy = sa.odeint(self.net, x, T[:2], method="euler", options={"step_size": 0.35})[-1].square().sum()
            (force,) = torch.autograd.grad(energy, x)
        return self.net(t, y) - force

class Nested(torch.nn.Module):
    "A solve in every call, on the graph of the call."
    def __init__(self):
        super().__init__()
        self.net = Mlp()
    def forward(self, t, y):
        return sa.odeint(self.net, y, T[:2], method="euler", options={"step_size": 0.35})[-1] - y

net, y0 = KIND(), start()
bars = {}
for gradient in ("backprop", "symplectic", "aca", "baseline"):
    ys = sa.odeint(net, y0, T, **keywords_of(gradient, options={"step_size": 0.5}))
    bars[gradient] = torch.autograd.grad(loss_of(ys), [y0, *net.parameters()])
print(max(worst(x, bars["backprop"]) for x in bars.values()))
"""


@pytest.mark.parametrize("kind", ["Potential", "Inner", "Nested"])
def test_no_thread_waits_for_ever(table, kind):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.replace("KIND", kind)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table.at_most("inner gradients", f"{kind}: error", float(done.stdout.split()[-1]), 1e-4)  # float32 rounding
