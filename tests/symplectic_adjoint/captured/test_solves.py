"""What a captured solve can be part of: other solves, training, events, jumps, threads, second derivatives."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from symplectic_adjoint import (
    BudgetTooSmall,
    NeuralODE,
    NonFiniteError,
    Revolve,
    Symplectic,
    odeint,
    odeint_adjoint,
    odeint_event,
    solve,
)
from symplectic_adjoint.field.transforms import batched
from tests.fields import SmallNet, start, weighted_loss
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ADAPTIVE = {"rtol": 1e-6, "atol": 1e-8}
FIXED = {"method": "rk4", "options": {"step_size": 0.2}}
BOTH = pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
# The two solves do the same operations in another order.
ROUNDING = 1e-11


def differ(got, expected):
    assert [x is None for x in got] == [x is None for x in expected]
    return max(relative_error(a, b) for a, b in zip(got, expected, strict=True) if b is not None)


def gradient(func, y, t=T, **keywords):
    ys = odeint(func, y, t, **keywords)
    return torch.autograd.grad(weighted_loss(ys), [y, *func.parameters()], allow_unused=True)


@BOTH
def test_several_solves_alive_at_once_keep_their_own_states(graphs, keywords):
    func = SmallNet()
    starts = [start(seed=i).requires_grad_() for i in range(3)]
    losses = [weighted_loss(odeint(func, y, T, capture=True, **keywords)) for y in starts]
    for loss, y in reversed(list(zip(losses, starts, strict=True))):
        got = torch.autograd.grad(loss, [y, *func.parameters()], allow_unused=True)
        assert differ(got, gradient(func, y, **keywords)) < ROUNDING


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "adaptive_heun"])
def test_a_retry_starts_where_the_rejected_step_did(graphs, method):
    func, y = SmallNet(), start().requires_grad_()
    keywords = {"method": method, "rtol": 1e-6, "atol": 1e-8, "options": {"first_step": 1.0}}
    for _ in range(2):  # recorded, then replayed
        captured, eager = (solve(func, y, T, capture=capture, **keywords) for capture in (True, False))
        assert captured.stats.rejected == eager.stats.rejected > 0
        assert relative_error(captured.ys, eager.ys) < ROUNDING
    assert differ(gradient(func, y, capture=True, **keywords), gradient(func, y, **keywords)) < ROUNDING


@BOTH
def test_a_state_that_a_callback_changes_in_place_is_where_the_next_step_starts(graphs, keywords):
    class Doubled(SmallNet):
        def callback_step(self, t, y, dt):
            y.mul_(2.0)

    func, y = Doubled(), start()
    with torch.no_grad():
        captured, eager = (odeint(func, y.clone(), T, capture=capture, **keywords) for capture in (True, False))
    assert relative_error(captured, eager) < ROUNDING


def test_an_end_that_is_not_finite_is_found(graphs):
    def func(t, y):
        return torch.where(t < 0.7, y, torch.inf)

    for _ in range(2):
        with pytest.raises(NonFiniteError):
            odeint(func, start(), T, capture=True, **FIXED)


@BOTH
def test_a_solve_within_a_callback_of_another(graphs, keywords):
    class Watched(SmallNet):
        def callback_accept_step(self, t, y, dt):
            if self.nested:
                self.nested = False
                odeint(self, 2 * y.detach(), T, capture=True, **keywords)
                self.nested = True

    func, y = Watched(), start().requires_grad_()
    func.nested = False
    expected = gradient(func, y, **keywords)
    func.nested = True
    assert differ(gradient(func, y, capture=True, **keywords), expected) < ROUNDING


@BOTH
def test_the_graph_can_be_retained_and_gradients_add_up(graphs, keywords):
    func, y = SmallNet(), start().requires_grad_()
    ys = odeint(func, y, T, capture=True, **keywords)
    inputs = [y, *func.parameters()]
    loss = weighted_loss(ys)
    first = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))
    func.zero_grad()
    for _ in range(2):
        weighted_loss(odeint(func, y.detach(), T, capture=True, **keywords)).backward()
    assert differ([p.grad for p in func.parameters()], [None if x is None else 2 * x for x in first[1:]]) < ROUNDING
    kept = [None if x is None else x.clone() for x in first]
    solve(func, 3 * y, T, capture=True, **keywords).ys.sum().backward()
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, kept, strict=True))  # first is no buffer


@BOTH
def test_double_backward_runs_without_programs_and_says_so(graphs, keywords):
    func, y = SmallNet(), start().requires_grad_()

    def second(capture):
        solution = solve(func, y, T, capture=capture, **keywords)
        (first,) = torch.autograd.grad(weighted_loss(solution.ys), y, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [y, *func.parameters()], allow_unused=True), solution.stats

    got, stats = second(True)
    assert differ(got, second(False)[0]) < ROUNDING
    assert "double backward" in stats.capture.fallback
    assert "double backward" in str(stats.capture)


def test_a_batch_of_cotangents_runs_without_programs_and_says_so(graphs):
    func, y = SmallNet(), start().requires_grad_()
    solution = solve(func, y, T, capture=True, **FIXED)
    vectors = torch.randn(2, *solution.ys.shape, dtype=torch.float64)
    (got,) = torch.autograd.grad(solution.ys, y, vectors, is_grads_batched=True)
    ys = odeint(func, y, T, **FIXED)
    expected = torch.stack([torch.autograd.grad(ys, y, v, retain_graph=True)[0] for v in vectors])
    assert relative_error(got, expected) < ROUNDING
    assert "vmap" in solution.stats.capture.fallback
    assert not batched(got)


@BOTH
def test_a_training_loop_takes_the_same_steps(graphs, keywords):
    nets = [SmallNet(), SmallNet()]
    nets[1].load_state_dict(nets[0].state_dict())
    losses = []
    for net, capture in zip(nets, (True, False), strict=True):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            loss = odeint(net, start(), T, capture=capture, **keywords)[-1].square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) < 1e-9 * abs(losses[1])


@BOTH
def test_threads_never_share_programs(graphs, keywords):
    func = SmallNet()
    starts = [start(seed=i).requires_grad_() for i in range(4)]
    expected = [gradient(func, y, **keywords) for y in starts]
    found, errors = {}, []

    def work(i):
        try:
            for _ in range(3):
                found[i] = gradient(func, starts[i], capture=True, **keywords)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert max(differ(found[i], expected[i]) for i in range(4)) < ROUNDING


@pytest.mark.parametrize("keywords", [{**ADAPTIVE}, {"method": "rk4", "options": {"step_size": 0.1}}])
def test_a_jump_and_times_that_are_differentiated(graphs, keywords):
    func = SmallNet()

    def jumping(t, y):
        return func(t, y) + torch.where(t < 0.5, 0.0, 2.0)

    options = {**keywords.get("options", {}), "jump_t": [0.5]}
    y, t = start().requires_grad_(), T.clone().requires_grad_()

    def of(capture):
        ys = odeint(jumping, y, t, **{**keywords, "options": options}, capture=capture)
        return torch.autograd.grad(weighted_loss(ys), [y, t, *func.parameters()], allow_unused=True)

    assert differ(of(True), of(False)) < ROUNDING


def test_events(graphs):
    rate = nn.Parameter(torch.tensor(9.81, dtype=torch.float64))

    def fall(t, y):
        return torch.stack([y[1], -rate])

    y = torch.tensor([10.0, 0.0], dtype=torch.float64, requires_grad=True)

    def of(capture):
        event_t, ys = odeint_event(
            fall, y, torch.tensor(0.0), event_fn=lambda t, y: y[0], odeint_interface=odeint, capture=capture, **ADAPTIVE
        )
        return torch.autograd.grad(event_t + ys[-1].sum(), [y, rate])

    assert differ(of(True), of(False)) < 1e-8  # the search for the event ends at a tolerance


@BOTH
def test_autocast_as_in_eager_mode(graphs, keywords):
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
    y, t = torch.randn(4, 3, requires_grad=True), torch.tensor([0.0, 1.0])
    keywords = {**keywords, **({"rtol": 0.02, "atol": 0.02} if "rtol" in keywords else {})}

    def of(capture):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ys = odeint(lambda t, y: net(y), y, t, capture=capture, **keywords)
        return torch.autograd.grad(ys[-1].square().sum(), [y, *net.parameters()])

    for _ in range(2):
        assert differ(of(True), of(False)) < 0.02  # bfloat16 has a spacing of 0.8 %


@BOTH
def test_hooks_on_parameters_see_one_whole_gradient(graphs, keywords):
    func, y = SmallNet(), start().requires_grad_()
    index = [name for name, _ in func.named_parameters()].index("inner.weight")
    expected = gradient(func, y, **keywords)[1 + index]
    seen = []
    func.inner.weight.register_hook(seen.append)
    for _ in range(2):
        weighted_loss(odeint(func, y, T, capture=True, **keywords)).backward()
    assert len(seen) == 2
    assert max(relative_error(x, expected) for x in seen) < ROUNDING


def test_modules_copy_and_pickle_without_their_programs(graphs):
    func = SmallNet()
    gradient(func, start().requires_grad_(), capture=True, **FIXED)
    other = pickle.loads(pickle.dumps(copy.deepcopy(func)))
    y = start().requires_grad_()
    assert differ(gradient(other, y, capture=True, **FIXED), gradient(func, y, **FIXED)) < ROUNDING


def test_without_a_gradient_and_in_inference_mode(graphs):
    func, y = SmallNet(), start()
    expected = odeint(func, y, T, **FIXED)
    with torch.inference_mode():
        assert relative_error(odeint(func, y, T, capture=True, **FIXED), expected) < ROUNDING
    with torch.no_grad():
        assert relative_error(odeint(func, y, T, capture=True, **FIXED), expected) < ROUNDING
    assert relative_error(odeint(func, y, T, capture=True, **FIXED), expected) < ROUNDING
    y = y.requires_grad_()
    assert differ(gradient(func, y, capture=True, **FIXED), gradient(func, y, **FIXED)) < ROUNDING


def test_every_public_function_takes_it(graphs):
    func, y = SmallNet(), start().requires_grad_()
    expected = gradient(func, y, **FIXED)
    layer = NeuralODE(func, capture=True, **FIXED)
    got = torch.autograd.grad(weighted_loss(layer(y, T)), [y, *func.parameters()], allow_unused=True)
    assert differ(got, expected) < ROUNDING
    ys = odeint_adjoint(func, y, T, capture=True, **FIXED)
    got = torch.autograd.grad(weighted_loss(ys), [y, *func.parameters()], allow_unused=True)
    assert differ(got, expected) < ROUNDING


@pytest.mark.parametrize("norm", [None, lambda x: x.abs().max()], ids=["default", "given"])
@pytest.mark.parametrize("tolerance", [1e-5, torch.tensor([1e-4, 1e-5, 1e-6], dtype=torch.float64)], ids=str)
def test_step_control_takes_the_steps_of_eager_mode(graphs, norm, tolerance):
    func, y = SmallNet(), start()
    options = {} if norm is None else {"norm": norm}
    for method in ("dopri5", "dop853", "adaptive_heun"):
        for factor in (1.0, 0.1):  # other tolerances in the same programs
            eager, captured = (
                solve(func, y, T, rtol=factor * tolerance, atol=factor * tolerance, method=method, options=options,
                      capture=capture)
                for capture in (False, True)
            )  # fmt: skip
            assert captured.stats.accepted == eager.stats.accepted
            assert captured.stats.rejected == eager.stats.rejected
            # The first step size comes from a difference of two values of f, where their rounding is amplified.
            torch.testing.assert_close(captured.grid.h, eager.grid.h, rtol=1e-5, atol=1e-12)


STRATEGIES = [Revolve(3), Revolve(1), Symplectic(offload="disk"), Symplectic(check=False)]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@BOTH
def test_options_of_the_gradients(graphs, strategy, keywords):
    func, y = SmallNet(), start().requires_grad_()
    expected = gradient(func, y, **keywords)
    assert differ(gradient(func, y, gradient=strategy, capture=True, **keywords), expected) < ROUNDING


def test_a_frozen_network_and_a_frozen_state(graphs):
    func, y = SmallNet().requires_grad_(False), start().requires_grad_()
    (got,) = torch.autograd.grad(weighted_loss(odeint(func, y, T, capture=True, **FIXED)), y)
    (expected,) = torch.autograd.grad(weighted_loss(odeint(func, y, T, **FIXED)), y)
    assert relative_error(got, expected) < ROUNDING
    func.requires_grad_()
    got = torch.autograd.grad(weighted_loss(odeint(func, y.detach(), T, capture=True, **FIXED)), func.inner.weight)
    expected = torch.autograd.grad(weighted_loss(odeint(func, y.detach(), T, **FIXED)), func.inner.weight)
    assert differ(got, expected) < ROUNDING


def test_an_error_of_a_solve_leaves_programs_usable(graphs):
    def blows_up(t, y):
        return y.square()

    y = torch.ones(2, dtype=torch.float64)
    failed = solve(blows_up, y, torch.tensor([0.0, 2.0]), capture=True, on_failure="return")
    assert failed.failure is not None
    fine = odeint(blows_up, y, torch.tensor([0.0, 0.5]), capture=True, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(fine[-1], torch.full((2,), 2.0, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("keywords", [ADAPTIVE, {"method": "rk4", "options": {"step_size": 0.02}}])
@pytest.mark.parametrize("budget", ["1 MiB", "80 KiB"])
def test_auto_keeps_as_many_starts_as_fit(graphs, keywords, budget):
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8)).double()

    def func(t, y):
        return net(y)

    y = torch.randn(16, 8, dtype=torch.float64, requires_grad=True)

    def of(**more):
        solution = solve(func, y, T, **keywords, **more)
        return torch.autograd.grad(weighted_loss(solution.ys), [y, *net.parameters()]), solution.stats

    got, stats = of(gradient="auto", memory_budget=budget, capture=True)
    assert differ(got, of()[0]) < ROUNDING
    assert stats.choice.graphs == stats.choice.stages == 0
    assert stats.choice.predicted_peak_bytes <= stats.choice.budget_bytes
    if budget == "1 MiB":
        assert stats.choice.starts == stats.choice.steps == stats.accepted
    with pytest.raises(BudgetTooSmall) as error:
        of(gradient="auto", memory_budget="2 KiB", capture=True)
    of(gradient="auto", memory_budget=error.value.least_bytes, capture=True)
