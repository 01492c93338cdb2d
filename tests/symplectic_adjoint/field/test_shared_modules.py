"""Threads whose solves share modules or parameters have the gradients that each has alone."""

import gc
import weakref

import pytest
from torch import nn

from symplectic_adjoint.field import module_lock
from tests.fields import SmallNet
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.threads import (
    ROUNDING,
    Through,
    gradients,
    largest_error,
    linear,
    many_switches,
    run_together,
    tied_weights,
    worker,
)


def two_with_a_submodule_in_common():
    shared = linear()
    return [(net, tuple(net.parameters()), {}) for net in (Through(linear(), shared), Through(shared, linear()))]


def three_in_a_chain():
    """No module is common to the first and the third."""
    a, b = linear(), linear()
    nets = Through(linear(), a), Through(a, b), Through(b, linear())
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
