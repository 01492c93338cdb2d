"""Which solves wait for one another, what they hold meanwhile, and when they let go."""

import os
import signal
import threading

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field import module_lock
from tests.fields import start
from tests.symplectic_adjoint.field.threads import (
    A_WHILE_S,
    ROUNDING,
    STEPS,
    TIME_LIMIT_S,
    Gate,
    T,
    Through,
    backward_in_a_thread,
    gradients,
    largest_error,
    linear,
    run_together,
)


@pytest.mark.usefixtures("first_solves")
def test_a_solve_waits_for_a_backward_pass_that_shares_a_submodule():
    shared = linear()
    first, second, calls = Gate(shared), Through(linear(), shared), []
    second.register_forward_pre_hook(lambda *_: calls.append(1))
    leaves, expected = tuple(second.parameters()), gradients(second, tuple(second.parameters()))
    module_lock._TABLE.threads.clear()
    calls.clear()
    threads, got = backward_in_a_thread(first), []
    done = threading.Event()
    threads.start(lambda: (got.extend(gradients(second, leaves)), done.set()))
    assert not done.wait(A_WHILE_S) and not calls
    first.opened.set()
    threads.join()
    assert calls and largest_error(got, expected) < ROUNDING


def test_a_thread_lists_a_modules_own_parameters_while_another_one_sweeps():
    """No parameters are replaced where two threads solve."""
    gate = Gate(linear())
    leaves = tuple(gate.parameters())
    gradients(gate, leaves)
    threads = backward_in_a_thread(gate)
    assert all(map(lambda p, q: p is q, gate.parameters(), leaves))
    gate.opened.set()
    threads.join()


def both_inside(barrier, net):
    """Return a func that goes on when another thread is inside such a func."""

    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            barrier.wait(TIME_LIMIT_S)
            return self.net(t, y)

    return Meeting()


@pytest.mark.usefixtures("either_sums")
def test_solves_that_share_nothing_run_at_the_same_time():
    barrier = threading.Barrier(2)
    nets = [both_inside(barrier, Through(linear())) for _ in range(2)]
    run_together(*[lambda net=net: gradients(net, tuple(net.parameters())) for net in nets])


def replica_of(module):
    """Return what nn.DataParallel makes of a module: other modules, whose parameters are computed attributes."""
    replica = module._replicate_for_data_parallel()
    for name, p in module._parameters.items():
        setattr(replica, name, p * 1.0)
    for name, child in module._modules.items():
        replica._modules[name] = replica_of(child)
    return replica


@pytest.mark.usefixtures("either_sums")
def test_replicas_run_at_the_same_time():
    """As those of nn.DataParallel do, each in a thread."""
    barrier, net = threading.Barrier(2), Through(linear())
    leaves = tuple(net.parameters())
    expected = gradients(net, leaves, gradient="backprop")
    replicas = [replica_of(both_inside(barrier, net)) for _ in range(2)]
    got = {}
    run_together(*[lambda i=i, r=r: got.update({i: gradients(r, leaves)}) for i, r in enumerate(replicas)])
    assert all(largest_error(got[i], expected) < ROUNDING for i in range(2))


def test_a_backward_pass_that_waits_as_the_forward_pass_never_did_is_not_waited_for_for_ever(monkeypatch, first_solves):
    monkeypatch.setattr(module_lock, "GIVE_UP_S", A_WHILE_S)
    gate = Gate(linear())
    threads = backward_in_a_thread(gate)
    with pytest.raises(sa.SolverError, match=r"waited 0\.2 s for a backward pass in another thread"):
        sa.odeint(gate, start(), T, **STEPS)
    gate.opened.set()
    threads.join()
    gate.closed.clear()
    sa.odeint(gate, start(), T, **STEPS)


def test_an_error_in_func_releases_the_lock():
    shared = linear()

    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = shared

        def forward(self, t, y):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sa.odeint(Fails(), start(), T, **STEPS)
    net = Through(shared)
    run_together(lambda: gradients(net, tuple(net.parameters())))


@pytest.mark.usefixtures("first_solves")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to a thread")
def test_a_signal_ends_the_wait_for_a_lock():
    gate = Gate(linear())
    threads = backward_in_a_thread(gate)
    main = threading.main_thread().ident

    def interrupt():
        while not module_lock._TABLE._queue:
            pass
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores the signal
    try:
        threads.start(interrupt)
        with pytest.raises(KeyboardInterrupt):
            sa.odeint(gate, start(), T, **STEPS)
    finally:
        signal.signal(signal.SIGINT, before)
    gate.opened.set()
    threads.join()
    assert not module_lock._TABLE.held and not module_lock._TABLE._queue


@pytest.mark.usefixtures("first_solves")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_threads_that_it_lacks():
    """As the workers of a DataLoader are forked while another thread trains."""
    gate = Gate(linear())
    threads = backward_in_a_thread(gate)
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(int(TIME_LIMIT_S))  # ends the process if it waits
            gate.closed.clear()
            sa.odeint(gate, start(), T, **STEPS)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.opened.set()
    threads.join()


@pytest.mark.usefixtures("first_solves")
def test_parameters_listed_in_another_threads_backward_pass_are_the_modules_own():
    """As params=tuple(net.parameters()) may list aliases then."""
    gate = Gate(linear())
    leaves = tuple(gate.parameters())

    def plain(t, y):
        return torch.tanh(y @ listed[0].T + listed[1])

    listed = leaves
    expected = gradients(plain, leaves, params=leaves)
    module_lock._TABLE.threads.clear()
    threads = backward_in_a_thread(gate)
    aliases = tuple(gate.parameters())
    assert aliases[0] is not leaves[0]
    gate.opened.set()
    threads.join()
    gate.closed.clear()
    assert largest_error(gradients(lambda t, y: gate(t, y), leaves, params=aliases), expected) < ROUNDING
