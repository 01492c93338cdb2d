"""Random numbers that threads draw inside and outside of solves."""

import threading

import torch
from torch import nn

from tests.symplectic_adjoint.field.threads import (
    ROUNDING,
    Threads,
    Through,
    gradients,
    in_a_thread,
    largest_error,
    linear,
    many_switches,
    run_together,
    wait,
)


class Drops(nn.Module):
    """A func that draws the same mask in every call of a solve. It keeps the masks."""

    def __init__(self):
        super().__init__()
        self.layer, self.masks = linear(), []

    def forward(self, t, y):
        mask = nn.functional.dropout(torch.ones_like(y), 0.5)
        self.masks.append(mask)
        return torch.tanh(self.layer(y)) * mask


def test_each_of_two_threads_with_dropout_draws_one_mask_a_solve():
    """They share nothing but the generator."""

    def work(net):
        for _ in range(30):
            net.masks.clear()
            gradients(net, tuple(net.parameters()))
            assert len(net.masks) > 4 and all(torch.equal(mask, net.masks[0]) for mask in net.masks)

    with many_switches():
        run_together(*[lambda net=net: work(net) for net in (Drops(), Drops())])


def test_a_thread_that_draws_outside_a_solve_is_not_taken_for_func():
    net = Through(linear())
    calls = []

    def draw_later(*_):
        calls.append(1)
        if len(calls) == 3:
            in_a_thread(lambda: torch.randn(3))

    net.register_forward_pre_hook(draw_later)
    other = threading.Event()
    threads = Threads()
    threads.start(lambda: wait(other))
    try:
        leaves = tuple(net.parameters())
        got = gradients(net, leaves)
        assert largest_error(got, gradients(net, leaves, gradient="backprop")) < ROUNDING
    finally:
        other.set()
        threads.join()
