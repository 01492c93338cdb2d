"""Threads that solve and are joined within a time limit, and what they solve with."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import start
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.5], dtype=torch.float64)
STEPS = {"method": "rk4", "options": {"step_size": 0.25}}
ROUNDING = 1e-13  # explicit sums and aliases add in another order; 1e-15 measured
TIME_LIMIT_S = 60.0  # a test takes a second or two; beyond, threads wait for each other
A_WHILE_S = 0.2  # in which a thread that does not wait would have called func


@contextmanager
def many_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Threads:
    """Threads that are joined within the time limit; their first error is raised."""

    def __init__(self):
        self.errors, self.threads = [], []

    def start(self, work):
        def guarded():
            try:
                work()
            except BaseException as error:
                self.errors.append(error)

        self.threads.append(threading.Thread(target=guarded, daemon=True))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(TIME_LIMIT_S)
            assert not thread.is_alive(), "a thread waits for ever"
        for error in self.errors:
            raise error


def run_together(*works):
    threads = Threads()
    for work in works:
        threads.start(work)
    threads.join()


def wait(event):
    assert event.wait(TIME_LIMIT_S), "another thread did not come as far"


def linear():
    return nn.Linear(3, 3, dtype=torch.float64)


class Through(nn.Module):
    """Layers one after the other."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, t, y):
        for layer in self.layers:
            y = torch.tanh(layer(y))
        return y * torch.cos(t)


def gradients(func, leaves, **given):
    ys = sa.odeint(func, start(), T, **{**STEPS, **given})
    return torch.autograd.grad(ys.square().sum(), leaves)


def largest_error(got, expected):
    return max(relative_error(a, b) for a, b in zip(got, expected, strict=True))


def worker(func, leaves, times, **given):
    """Return work that computes a gradient many times and compares each with that of one thread alone."""
    expected = gradients(func, leaves, **{**given, "gradient": "backprop"})

    def work():
        for _ in range(times):
            assert largest_error(gradients(func, leaves, **given), expected) < ROUNDING

    return work


def tied_weights():
    nets = Through(linear()), Through(linear())
    nets[1].layers[0].weight = nets[0].layers[0].weight
    return [(net, tuple(net.parameters()), {}) for net in nets]


def backward_in_a_thread(gate):
    """Solve and differentiate in a new thread, which then stands in the backward pass, and return the threads."""
    threads = Threads()

    def work():
        ys = sa.odeint(gate, start(), T, **STEPS)
        gate.closed.set()
        torch.autograd.grad(ys.sum(), leaf)

    leaf = gate.layer.weight
    threads.start(work)
    wait(gate.entered)
    return threads


class Gate(nn.Module):
    """A layer that tells when it is called, and waits until it may go on."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.closed = layer, threading.Event()  # set between the passes; an attribute would be put back
        self.entered, self.opened = threading.Event(), threading.Event()

    def forward(self, t, y):
        if self.closed.is_set():
            self.entered.set()
            wait(self.opened)
        return torch.tanh(self.layer(y))


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(TIME_LIMIT_S)
