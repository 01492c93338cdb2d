"""Tensors of a solve are freed in time: checkpoints when they are used, all others with the graph at the latest."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

import symplectic_adjoint as sa
from symplectic_adjoint import watch_memory as watch
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ENDS = T[[0, 2]]
STEPS = 6
KEEPING = ["aca", "symplectic", "stages", "revolve"]  # a state of every step, at least; revolve has room for all
RETAKING = ["symplectic", "revolve"]
RECOMPUTING = [name for name in STANDARD if name != "backprop"]
FIXED = {"method": "rk4", "options": {"step_size": 1 / STEPS}}
SHORT = {"method": "rk4", "options": {"step_size": 0.5}}
ADAPTIVE = {"rtol": 1e-2, "atol": 1e-2}

every_gradient = pytest.mark.parametrize("gradient", STANDARD)
both_methods = pytest.mark.parametrize("method", ["rk4", "dopri5"])


@pytest.fixture
def no_collector():
    """Switch the cyclic garbage collector off: tensors must be freed without it."""
    gc.disable()
    yield
    gc.enable()


class Spy(nn.Module):
    """Knows which of the states and slopes of the forward pass are still in memory, at every later call too."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.states, self.slopes, self.seen = [], [], []
        self.passes = {"forward"}  # a set: an attribute would be put back for the backward pass

    def alive(self):
        return tuple(sum(not x.expired() for x in held) for held in (self.states, self.slopes))

    def forward(self, t, y):
        k = self.net(t, y)
        if "backward" in self.passes:
            self.seen.append(self.alive())
        else:
            self.states.append(StorageWeakRef(y.untyped_storage()))
            self.slopes.append(StorageWeakRef(k.untyped_storage()))
        return k

    def solve(self, method, gradient, y0=None):
        options = {"step_size": 1 / STEPS}
        ys = sa.odeint(self, start() if y0 is None else y0, ENDS, method=method, options=options, gradient=gradient)
        self.passes.add("backward")
        return ys


def kept_by(gradient, method):
    """(states, slopes) kept between the passes: y0 is the caller's."""
    s = sa.METHODS[method].stages
    return {
        "baseline": (0, 0),
        "aca": (STEPS - 1, 0),
        "symplectic": (STEPS - 1, s),  # the last step's stages, for the first pass back
        "stages": (STEPS - 1, STEPS * (s - 1) + 1),
        "revolve": (STEPS - 1, s),
        "continuous": (0, 0),
    }[gradient]


class TestCheckpoints:
    @both_methods
    @pytest.mark.parametrize("gradient", KEEPING)
    def test_are_freed_one_after_the_other_in_the_backward_pass(self, gradient, method, no_collector):
        spy = Spy()
        ys = spy.solve(method, gradient)
        states, slopes = kept_by(gradient, method)
        assert spy.alive() == (states, slopes)
        ys.sum().backward()
        seen_states, seen_slopes = zip(*spy.seen, strict=True)
        assert sorted(set(seen_states), reverse=True) == list(dict.fromkeys(seen_states))  # never more than before
        assert max(seen_states) == states and set(seen_states) >= set(range(1, states + 1))
        assert list(seen_slopes) == sorted(seen_slopes, reverse=True)
        # A stage's own is gone when its transpose is taken; where it was kept, f is compared with it just before.
        assert set(seen_slopes) >= set(range(1 if gradient == "stages" else 0, slopes))
        assert spy.alive() == (0, 0)

    @both_methods
    @pytest.mark.parametrize("gradient", KEEPING)
    def test_stay_while_the_graph_is_retained(self, gradient, method, no_collector):
        spy = Spy()
        ys = spy.solve(method, gradient)
        states, slopes = kept_by(gradient, method)
        loss = ys.sum()
        loss.backward(retain_graph=True)
        assert {alive for alive, _ in spy.seen} == {states}
        if gradient in RETAKING:  # keeping the last stages must not cost memory in the whole backward pass
            slopes = 0
        assert spy.alive() == (states, slopes)
        loss.backward()
        assert spy.alive() == (0, 0)

    @both_methods
    @pytest.mark.parametrize("gradient", RECOMPUTING)
    def test_are_freed_with_a_graph_that_is_never_used(self, gradient, method, no_collector):
        spy = Spy()
        ys = spy.solve(method, gradient)
        assert spy.alive() == kept_by(gradient, method)
        del ys
        assert spy.alive() == (0, 0)

    @every_gradient
    def test_stay_for_a_part_of_the_outputs(self, gradient, no_collector):
        spy = Spy()
        last = spy.solve("rk4", gradient)[-1]
        last.sum().backward()
        assert spy.net.twice.grad is not None

    @both_methods
    @every_gradient
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_are_not_kept_under_no_grad(self, mode, gradient, method, no_collector):
        spy, y0 = Spy(), start().requires_grad_()
        with mode():
            ys = spy.solve(method, gradient, y0)
        assert not ys.requires_grad
        del y0  # the first state of all
        assert spy.alive() == (0, 0)

    @both_methods
    @every_gradient
    def test_are_not_kept_where_nothing_requires_a_gradient(self, gradient, method, no_collector):
        spy = Spy().requires_grad_(False)
        ys = spy.solve(method, gradient)
        assert not ys.requires_grad and spy.alive() == (0, 0)


class TestHooksOnSavedTensors:
    """Checkpoints are saved as autograd saves, so that its hooks may move them elsewhere."""

    def grads(self, gradient, hooks):
        func, y0 = SmallNet(), start().requires_grad_()
        with hooks:
            ys = sa.odeint(func, y0, T, gradient=gradient, **FIXED)
        return torch.autograd.grad(weighted_loss(ys), [y0, func.twice, func.inner.weight])

    @pytest.mark.parametrize("gradient", RECOMPUTING)
    def test_are_passed_the_saved_tensors_and_their_results_are_used(self, gradient):
        packed, unpacked = [], []

        def pack(x):
            packed.append(x.shape)
            return x.clone()

        def unpack(x):
            unpacked.append(x.shape)
            return x

        plain = self.grads(gradient, saved_tensors_hooks(lambda x: x, lambda x: x))
        got = self.grads(gradient, saved_tensors_hooks(pack, unpack))
        assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))
        states = 1 + sum(kept_by(gradient, "rk4")) - (4 if gradient in RETAKING else 0)  # y0, and no last stages
        assert unpacked.count((4, 3)) == states <= packed.count((4, 3))
        assert unpacked.count((3, 4, 3)) == (1 if gradient == "continuous" else 0)  # ys itself

    @every_gradient
    def test_that_move_them_to_the_host_leave_the_gradient_as_it_is(self, gradient):
        plain = self.grads(gradient, saved_tensors_hooks(lambda x: x, lambda x: x))
        got = self.grads(gradient, save_on_cpu())
        assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))

    @both_methods
    @pytest.mark.parametrize("gradient", KEEPING)
    def test_that_keep_them_elsewhere_free_their_memory(self, gradient, method, no_collector):
        spy = Spy()
        with saved_tensors_hooks(lambda x: x.detach().numpy().copy(), torch.from_numpy):
            ys = spy.solve(method, gradient)
        # All but the tensors that serve one backward pass only.
        assert spy.alive() == (0, sa.METHODS[method].stages if gradient in RETAKING else 0)
        ys.sum().backward()
        assert spy.net.twice.grad is not None and spy.alive() == (0, 0)


class Failing(nn.Module):
    """Raises at a call to come."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.calls_left = torch.tensor(-1)  # changed in place: an attribute would be put back for the backward pass

    def forward(self, t, y):
        if self.calls_left >= 0:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise KeyError("stopped")
        return self.net(t, y)


def trained(func, gradient, grid):
    weighted_loss(sa.odeint(func, start(), T, gradient=gradient, **grid)).backward()


def left_undone(func, gradient, grid):
    sa.odeint(func, start(), T, gradient=gradient, **grid)


def retained_and_dropped(func, gradient, grid):
    sa.odeint(func, start(), T, gradient=gradient, **grid).sum().backward(retain_graph=True)


def second_derivatives(func, gradient, grid):
    y0 = start().requires_grad_()
    ys = sa.odeint(func, y0, T, gradient=gradient, **grid)
    if sa.GRADIENTS[gradient].exact:
        (first,) = torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)
        first.square().sum().backward()


def structured(func, gradient, grid):
    y0 = {"y": start(), "z": [torch.zeros(2, dtype=torch.float64)]}
    ys = sa.odeint(
        lambda t, s: {"y": func(t, s["y"]), "z": [s["y"].sum() - s["z"][0]]}, y0, T, gradient=gradient,
        params=(*func.parameters(),), **grid,
    )  # fmt: skip
    weighted_loss(ys["y"]).backward()


def raises_going_forward(func, gradient, grid):
    func.calls_left.fill_(10)
    try:
        sa.odeint(func, start(), T, gradient=gradient, **grid)
    except KeyError:
        return
    raise AssertionError("func was called too seldom")


def raises_going_back(func, gradient, grid):
    ys = sa.odeint(func, start(), T, gradient=gradient, **grid)
    func.calls_left.fill_(6)
    raised = False
    try:
        ys.sum().backward()
    except KeyError:
        raised = True
    func.calls_left.fill_(-1)
    assert raised or gradient == "backprop"  # which calls func no more


def fails_to_converge(func, gradient, grid):
    try:
        sa.odeint(func, start(), T, gradient=gradient, rtol=1e-9, atol=1e-9, options={"max_num_steps": 5})
    except sa.SolverError:
        return
    raise AssertionError("the solve came to its end")


def finds_an_event(func, gradient, grid):
    event_t, ys = sa.odeint(func, start(), ENDS, event_fn=lambda t, y: 0.5 - t, gradient=gradient, **grid)
    (event_t + ys.sum()).backward()


SCENES = [
    trained, left_undone, retained_and_dropped, second_derivatives, structured, raises_going_forward,
    raises_going_back, fails_to_converge, finds_an_event,
]  # fmt: skip


class TestNothingGrows:
    """Tensors that Python knows of are counted over many iterations; bytes of all tensors over a few."""

    @every_gradient
    def test_over_a_hundred_iterations(self, gradient, no_collector):
        func = Failing()

        def iterate(n):
            for _ in range(n):
                trained(func, gradient, SHORT)

        def live():
            return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

        iterate(2)
        before = live()
        iterate(100)
        assert live() == before

    @every_gradient
    @pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
    def test_however_a_solve_ends(self, scene, gradient, no_collector):
        func = Failing()

        def play(n):
            for _ in range(n):
                scene(func, gradient, ADAPTIVE)
                func.zero_grad()

        play(1)
        (traffic,) = watch("cpu", lambda: play(2))
        assert traffic.left_bytes == 0 < traffic.peak_bytes

    @every_gradient
    @pytest.mark.parametrize("hold", [lambda ys: ys, lambda ys: ys[-1]], ids=["all", "the-last"])
    @pytest.mark.parametrize("holder", ["func", "layer"])
    def test_where_a_module_holds_its_latest_output(self, holder, hold, gradient, no_collector):
        layer = sa.NeuralODE(Failing(), gradient=gradient, **SHORT)
        module = layer if holder == "layer" else layer.func

        def iterate():
            for _ in range(3):
                module.latest = hold(layer(start(), T))

        first, second = watch("cpu", iterate, iterate)
        assert second.left_bytes == first.left_bytes > 0  # the latest output, and none before it


@every_gradient
def test_a_module_that_holds_its_own_output_is_freed_with_it(gradient):
    func = SmallNet()
    func.output = sa.odeint(func, start(), T, gradient=gradient, **FIXED)
    alive = weakref.ref(func)
    del func
    gc.collect()
    assert alive() is None


@every_gradient
def test_func_lives_as_long_as_the_graph_and_no_longer(gradient, no_collector):
    func = SmallNet()
    alive, weight = weakref.ref(func), func.twice
    ys = sa.odeint(func, start(), T, gradient=gradient, **FIXED)
    del func
    weighted_loss(ys).backward()
    assert weight.grad is not None
    del ys
    assert alive() is None


@pytest.mark.parametrize("gradient", EXACT)
def test_a_second_pass_over_a_graph_that_was_not_retained_is_refused(gradient):
    loss = weighted_loss(sa.odeint(SmallNet(), start(), T, gradient=gradient, **FIXED))
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@pytest.mark.parametrize("gradient", EXACT)
def test_a_second_pass_over_a_retained_graph_gives_the_same(gradient):
    func = SmallNet()
    loss = weighted_loss(sa.odeint(func, start(), T, gradient=gradient, **FIXED))
    first, second = (torch.autograd.grad(loss, [func.twice, func.inner.weight], retain_graph=True) for _ in range(2))
    # The last step's stages are evaluated again: the same operations on the same numbers.
    assert all(relative_error(a, b) < 1e-15 for a, b in zip(first, second, strict=True))
