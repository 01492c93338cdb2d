"""Threads whose solves share modules or parameters: right gradients, and no two wait for each other for ever."""

import gc
import os
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field import module_lock
from tests.fields import SmallNet, start
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


@pytest.fixture(params=["parameters stay", "aliases replace them"])
def either_sums(request, monkeypatch):
    """Sweeps as they are where several threads solve, and as they are before a second thread solves."""
    if request.param == "aliases replace them":
        monkeypatch.setattr(module_lock._Table, "other_threads_solve", lambda *_: False)


# ---- right gradients ----


def two_with_a_submodule_in_common():
    shared = linear()
    return [(net, tuple(net.parameters()), {}) for net in (Through(linear(), shared), Through(shared, linear()))]


def three_in_a_chain():
    """No module is common to the first and the third."""
    a, b = linear(), linear()
    nets = Through(linear(), a), Through(a, b), Through(b, linear())
    return [(net, tuple(net.parameters()), {}) for net in nets]


def tied_weights():
    nets = Through(linear()), Through(linear())
    nets[1].layers[0].weight = nets[0].layers[0].weight
    return [(net, tuple(net.parameters()), {}) for net in nets]


def a_module_and_a_function_that_names_it():
    net = SmallNet()
    net.unused.requires_grad_(False)
    leaves = tuple(p for p in net.parameters() if p.requires_grad)
    return [(net, leaves, {}), (lambda t, y: net(t, y) + y, leaves, {"params": leaves})]


def a_module_and_an_object_that_hides_it():
    class Plain:
        def __call__(self, t, y):
            return hidden["net"](t, y)

    net = Through(linear())
    hidden = {"net": net}
    leaves = tuple(net.parameters())
    return [(net, leaves, {}), (Plain(), leaves, {"params": leaves})]


def one_submodule_as_func():
    shared = Through(linear())

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.own = shared, linear()

        def forward(self, t, y):
            return self.shared(t, y) + self.own(y)

    return [(net, tuple(net.parameters()), {}) for net in (Outer(), shared)]


SITUATIONS = [
    two_with_a_submodule_in_common,
    three_in_a_chain,
    tied_weights,
    a_module_and_a_function_that_names_it,
    a_module_and_an_object_that_hides_it,
    one_submodule_as_func,
]


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_threads_that_share_a_part_get_their_own_gradients(situation, gradient):
    works = [worker(func, leaves, 25, gradient=gradient, **given) for func, leaves, given in situation()]
    with many_switches():
        run_together(*works)


@pytest.mark.usefixtures("either_sums")
def test_a_module_may_join_another_one_while_threads_train_both():
    """From then on the two share it."""
    first, second = Through(linear()), Through(linear())
    leaves = tuple(first.parameters())
    alone = gradients(second, tuple(second.parameters()))
    joined = Through(*second.layers, *first.layers)
    both = gradients(joined, tuple(joined.parameters()))

    def work():
        for i in range(30):
            if i == 10:
                second.layers.extend(first.layers)
            got = gradients(second, tuple(p for layer in list(second.layers) for p in own(layer)))
            assert largest_error(got, alone if i < 10 else both) < ROUNDING

    weights = {id(m): tuple(m.parameters()) for m in (*first.modules(), *second.modules())}

    def own(layer):
        return weights[id(layer)]

    with many_switches():
        run_together(worker(first, leaves, 40), work)


@pytest.mark.usefixtures("either_sums")
def test_modules_may_come_and_go_in_threads():
    shared, gone = linear(), []

    def work():
        for _ in range(20):
            net = Through(shared, linear())
            leaves = (*weights, *net.layers[1].parameters())
            expected = gradients(net, leaves, gradient="backprop")
            assert largest_error(gradients(net, leaves), expected) < ROUNDING
            gone.append(weakref.ref(net))

    weights = tuple(shared.parameters())
    with many_switches():
        run_together(work, work)
    gc.collect()
    assert not any(x() for x in gone)
    assert not module_lock._TABLE.held


@pytest.mark.usefixtures("either_sums")
def test_hooks_of_a_tied_weight_see_whole_gradients_only():
    (first, leaves, _), (second, others, _) = tied_weights()
    seen = []
    leaves[0].register_hook(lambda grad: seen.append(grad.clone()))
    expected = [gradients(func, own, gradient="backprop")[0] for func, own in ((first, leaves), (second, others))]
    seen.clear()
    with many_switches():
        run_together(
            lambda: [gradients(first, leaves, gradient="aca") for _ in range(20)],
            lambda: [gradients(second, others, gradient="aca") for _ in range(20)],
        )
    assert len(seen) == 40
    assert all(min(relative_error(x, e) for e in expected) < ROUNDING for x in seen)


# ---- who waits for whom ----


@pytest.fixture
def first_solves():
    """Let this process have no thread that has solved, so that a thread's sweep may replace parameters."""
    module_lock._TABLE.threads.clear()
    yield
    module_lock._TABLE.threads.clear()


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


class SolvesInside(nn.Module):
    """A func that solves with another network."""

    def __init__(self, own, barrier=None):
        super().__init__()
        self.own, self.others, self.barrier = own, [], barrier

    def forward(self, t, y):
        if self.barrier is not None:
            self.barrier.wait(TIME_LIMIT_S)
        inner = sa.odeint(self.others[0], y, T, params=tuple(self.others[0].parameters()), **STEPS)
        return torch.tanh(self.own(t, inner[-1]))


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline"])
def test_two_threads_may_each_solve_inside_with_what_the_other_one_trains(gradient):
    """A's func solves with B's network and B's func with A's, both inside their func at once, in both passes."""
    barrier = threading.Barrier(2)
    a, b = SolvesInside(Through(linear())), SolvesInside(Through(linear()))
    a.others, b.others = [b.own], [a.own]
    leaves = (*a.own.parameters(), *b.own.parameters())
    given = {"params": leaves, "gradient": gradient}
    expected = [gradients(net, leaves, params=leaves, gradient="backprop") for net in (a, b)]
    a.barrier = b.barrier = barrier
    got = {}
    works = [lambda i=i, net=net: got.update({i: gradients(net, leaves, **given)}) for i, net in enumerate((a, b))]
    run_together(*works)
    assert all(largest_error(got[i], expected[i]) < ROUNDING for i in range(2))


@pytest.mark.usefixtures("either_sums")
def test_three_threads_may_solve_inside_round_a_ring():
    nets = [SolvesInside(Through(linear())) for _ in range(3)]
    for i, net in enumerate(nets):
        net.others = [nets[(i + 1) % 3].own]
    works = []
    for net in nets:
        leaves = (*net.own.parameters(), *net.others[0].parameters())
        works.append(worker(net, leaves, 5, params=leaves))
    with many_switches():
        run_together(*works)


def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(TIME_LIMIT_S)


def here(work):
    return work()


class Energy(nn.Module):
    """A func that differentiates through an inner solve with itself, as autograd does on a thread of the device."""

    def __init__(self, where):
        super().__init__()
        self.inner, self.where = Through(linear()), where

    def forward(self, t, y):
        with torch.enable_grad():
            x = y.detach().requires_grad_()
            energy = sa.odeint(self.inner, x, T, **STEPS)[-1].square().sum()
            (force,) = self.where(lambda: torch.autograd.grad(energy, x))
        return self.inner(t, y) - force


class SolvesElsewhere(nn.Module):
    """A func that solves with itself in a thread, and waits for it."""

    def __init__(self, where):
        super().__init__()
        self.inner, self.where = Through(linear()), where

    def forward(self, t, y):
        on = torch.is_grad_enabled()  # threads have their own

        def solve():
            with torch.set_grad_enabled(on):
                return sa.odeint(self.inner, y, T, **STEPS)[-1]

        return torch.tanh(self.where(solve)) - y


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca"])
@pytest.mark.parametrize("func", [Energy, SolvesElsewhere])
def test_func_may_wait_for_a_thread_that_solves_with_the_same_module(func, gradient):
    same, other = func(here), func(in_a_thread)
    other.load_state_dict(same.state_dict())
    expected = gradients(same, tuple(same.parameters()), gradient=gradient)
    got = []
    run_together(lambda: got.extend(gradients(other, tuple(other.parameters()), gradient=gradient)))
    assert largest_error(got, expected) < ROUNDING


@pytest.mark.usefixtures("either_sums")
@pytest.mark.parametrize("gradient", ["symplectic", "aca", "baseline"])
def test_the_backward_pass_of_an_inner_solve_may_run_in_another_thread(gradient):
    """In the backward pass of the outer one only, which holds aliases then: on a device it does."""

    class Carry(torch.autograd.Function):
        @staticmethod
        def forward(ctx, run, x):
            ctx.run = run
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return None, in_a_thread(lambda: ctx.run(grad))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.inside = Through(linear()), True

        def forward(self, t, y):
            if not self.inside:
                return self.inner(t, sa.odeint(self.inner, y, T, **STEPS)[-1])
            with torch.enable_grad():
                x = y.detach().requires_grad_()
                end = sa.odeint(self.inner, x, T, **STEPS)[-1]

            def pulled_back(grad):
                return torch.autograd.grad(end, x, grad)[0]

            if not torch.is_grad_enabled():
                return self.inner(t, end.detach())
            return self.inner(t, end.detach() + Carry.apply(pulled_back, y) - y.detach())

    func = Outer()
    y0 = start().requires_grad_()
    (expected,) = torch.autograd.grad(value(func, y0, "backprop", inside=False), y0)
    got = []
    run_together(lambda: got.extend(torch.autograd.grad(value(func, y0, gradient, inside=True), y0)))
    assert relative_error(got[0], expected) < ROUNDING


def value(func, y0, gradient, inside):
    func.inside = inside
    return sa.odeint(func, y0, T, gradient=gradient, **STEPS)[-1].square().sum()


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


# ---- the lock is released ----


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

    threads.start(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sa.odeint(gate, start(), T, **STEPS)
    gate.opened.set()
    threads.join()
    assert not module_lock._TABLE.held and not module_lock._TABLE._queue


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_a_func_that_solves_with_itself_for_ever_ends(grad, plain):
    net = linear()

    class Endless(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return sa.odeint(self, self.net(y), T, **STEPS)[-1]

    def endless(t, y):
        return sa.odeint(endless, net(y), T, params=net, **STEPS)[-1]

    func = endless if plain else Endless()
    with pytest.raises(RecursionError), torch.set_grad_enabled(grad):
        sa.odeint(func, start(), T, params=net, **STEPS)
    assert not module_lock._TABLE.held
    run_together(lambda: gradients(Through(net), tuple(net.parameters())))


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


# ---- what other threads see ----


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
