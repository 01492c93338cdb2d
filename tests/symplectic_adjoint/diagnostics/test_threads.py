"""Diagnostics in one thread while another one trains the same module."""

import sys
import threading

import pytest
import torch

from symplectic_adjoint import check_gradient, compare_gradients, odeint
from tests.fields import SmallNet, start
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.5], dtype=torch.float64)


@pytest.fixture
def switches_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Trainer(threading.Thread):
    """Computes the gradient over and over, and keeps every one of them."""

    def __init__(self, net):
        super().__init__()
        self.net, self.gradients, self.error = net, [], None
        self.parameters = list(net.parameters())  # as an optimizer holds them
        self.stop = threading.Event()

    def gradient(self):
        ys = odeint(self.net, start(), T, method="rk4", options={"step_size": 0.05})
        found = torch.autograd.grad(ys.sum(), self.parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    def run(self):
        try:
            while not self.stop.is_set():
                self.gradients.append(self.gradient())
        except Exception as error:
            self.error = error


OPTIONS = {"method": "rk4", "options": {"step_size": 0.05}}


def check(net):
    found = check_gradient(net, start(), T, **OPTIONS)
    assert found.ok and not any("[" in name for name in found.errors)  # parameters are found and named


def compare(net):
    found = compare_gradients(net, start(), T, gradients=("symplectic", "aca"), rounds=2, **OPTIONS)
    assert not [row.reason for row in found.rows if row.reason]


@pytest.mark.parametrize("diagnose", [check, compare])
def test_neither_thread_disturbs_the_other(diagnose, switches_often):
    net = SmallNet()
    trainer = Trainer(net)
    expected = trainer.gradient()
    trainer.start()
    try:
        for _ in range(3):
            diagnose(net)
    finally:
        trainer.stop.set()
        trainer.join()
    assert trainer.error is None and len(trainer.gradients) > 3
    # While two threads solve, the sums are formed in another order: 1e-16 measured.
    assert all(relative_error(gradient, expected) < 1e-14 for gradient in trainer.gradients)
