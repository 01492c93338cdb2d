"""Parameters of every kind, wherever they are held: their gradient is right, or its loss is an error."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error
from tests.symplectic_adjoint.field.parameter_gradients import (
    APPROXIMATE,
    FIXED,
    LOOSE,
    ROUNDING,
    T,
    assert_as_backprop,
    every_gradient,
    leaf,
    solve,
)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        self.second.weight = self.first.weight

    def forward(self, t, y):
        return self.second(torch.tanh(self.first(y)))


class TestAModulesOwn:
    """Parameters that module.parameters() lists."""

    @every_gradient
    def test_shared_by_two_layers_gets_the_sum_of_both(self, gradient):
        net = Tied()
        inputs = list(net.parameters())
        assert len(inputs) == 3
        assert_as_backprop(lambda g, params: solve(net, gradient=g, params=params), inputs, gradient)

    @every_gradient
    def test_frozen_gets_none_and_the_others_get_theirs(self, gradient):
        net, y0 = SmallNet(), start().requires_grad_()
        net.inner.requires_grad_(False)
        weighted_loss(solve(net, y0, gradient=gradient)).backward()
        assert net.inner.weight.grad is None and net.inner.bias.grad is None
        inputs = [y0, net.outer.weight, net.outer.bias, net.twice]
        assert_as_backprop(lambda g, params: solve(net, y0, gradient=g), inputs, gradient)

    @every_gradient
    def test_frozen_after_a_solve_gets_none_in_the_next_one(self, gradient):
        net = SmallNet()
        solve(net, gradient=gradient)
        net.twice.requires_grad_(False)
        weighted_loss(solve(net, gradient=gradient)).backward()
        assert net.twice.grad is None and net.outer.weight.grad is not None

    @every_gradient
    def test_frozen_between_the_passes_gets_none_and_the_others_theirs(self, gradient):
        net = SmallNet()
        expected = torch.autograd.grad(weighted_loss(solve(net, gradient="backprop")), net.outer.weight)[0]
        ys = solve(net, gradient=gradient)
        net.twice.requires_grad_(False)
        weighted_loss(ys).backward()
        assert net.twice.grad is None
        assert relative_error(net.outer.weight.grad, expected) < (ROUNDING if gradient in EXACT else APPROXIMATE)

    @every_gradient
    def test_unfrozen_between_the_passes_gets_none_and_the_others_theirs(self, gradient):
        """As with any operation of torch: a tensor that required no gradient when it was used gets none."""
        net = SmallNet()
        net.twice.requires_grad_(False)
        expected = torch.autograd.grad(weighted_loss(solve(net, gradient="backprop")), net.outer.weight)[0]
        ys = solve(net, gradient=gradient)
        net.twice.requires_grad_(True)
        weighted_loss(ys).backward()
        assert net.twice.grad is None
        assert relative_error(net.outer.weight.grad, expected) < (ROUNDING if gradient in EXACT else APPROXIMATE)

    @every_gradient
    def test_unused_gets_none(self, gradient):
        net = SmallNet()
        weighted_loss(solve(net, gradient=gradient)).backward()
        assert {name for name, p in net.named_parameters() if p.grad is None} == {"unused"}

    @every_gradient
    def test_used_at_some_times_only_gets_the_gradient_of_those(self, gradient):
        class Switched(nn.Module):
            def __init__(self):
                super().__init__()
                self.early, self.late = nn.Parameter(leaf(3)), nn.Parameter(leaf(3, seed=1))

            def forward(self, t, y):
                return (self.early if t < 0.5 else self.late) * y

        net = Switched()
        assert_as_backprop(lambda g, params: solve(net, gradient=g, **FIXED), [net.early, net.late], gradient)

    @every_gradient
    def test_behind_a_parametrisation_gets_its_gradient(self, gradient):
        class Normalised(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.net = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3).double())

            def forward(self, t, y):
                return torch.tanh(self.net(y))

        net = Normalised()
        assert_as_backprop(lambda g, params: solve(net, gradient=g), [*net.parameters()], gradient)


class TestAFunc:
    """The kinds of callable that func may be."""

    @every_gradient
    def test_may_be_a_function_whose_tensors_are_in_params(self, gradient):
        weight, bias = leaf(3, 3), leaf(3, seed=1)
        assert_as_backprop(
            lambda g, params: solve(lambda t, y: torch.tanh(y @ weight) + bias * t, gradient=g, params=params),
            [weight, bias],
            gradient,
            params=(weight, bias),
        )

    @every_gradient
    def test_may_be_a_method_of_a_module(self, gradient):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.net, self.scale = SmallNet(), nn.Parameter(leaf(3))

            def field(self, t, y):
                return self.scale * self.net(t, y)

        model = Model()
        inputs = [model.scale, model.net.inner.weight]
        assert_as_backprop(lambda g, params: solve(model.field, gradient=g), inputs, gradient)

    @every_gradient
    def test_may_be_a_partial_of_a_method(self, gradient):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = SmallNet()

            def field(self, scale, t, y, *, shift):
                return scale * self.net(t, y) + shift

        model = Model()
        func = partial(partial(model.field, 0.5), shift=0.1)
        inputs = [model.net.twice, model.net.inner.weight]
        assert_as_backprop(lambda g, params: solve(func, gradient=g), inputs, gradient)

    @every_gradient
    def test_may_be_an_object_that_holds_a_module(self, gradient):
        class Holder:
            def __init__(self, net):
                self.net = net

            def __call__(self, t, y):
                return self.net(t, y)

        net = SmallNet()
        inputs = [net.inner.weight, net.twice]
        for params in ((), (*net.parameters(),)):
            assert_as_backprop(lambda g, p: solve(Holder(net), gradient=g, params=p), inputs, gradient, params=params)

    @every_gradient
    def test_may_be_a_functional_call_with_other_parameters(self, gradient):
        net = SmallNet()
        others = {name: (p.detach() * 0.5).requires_grad_() for name, p in net.named_parameters()}
        assert_as_backprop(
            lambda g, params: solve(lambda t, y: functional_call(net, others, (t, y)), gradient=g, params=params),
            [p for name, p in others.items() if name != "unused"],
            gradient,
            params=(*others.values(),),
        )
        assert all(p.grad is None for p in net.parameters())

    # torch's tracer reads .grad of its inputs, which autograd warns of where they are no leaves.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    def test_may_be_a_compiled_module(self, backend):
        net = SmallNet()
        plain = weighted_loss(solve(net, gradient="backprop"))
        inputs = [net.inner.weight, net.outer.bias, net.twice]
        expected = torch.autograd.grad(plain, inputs)
        torch.compiler.reset()
        compiled = torch.compile(net, backend=backend)
        for gradient in sa.GRADIENTS:
            got = torch.autograd.grad(weighted_loss(solve(compiled, gradient=gradient)), inputs)
            bound = ROUNDING if gradient in EXACT else APPROXIMATE
            assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound, gradient
        torch.compiler.reset()

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    def test_that_is_compiled_loses_no_gradient(self):
        weight = leaf(3)
        torch.compiler.reset()
        compiled = torch.compile(lambda t, y: weight * y, backend="aot_eager")
        assert_as_backprop(lambda g, _: solve(compiled, gradient=g), [weight], "symplectic")
        torch.compiler.reset()

    @every_gradient
    def test_may_be_a_data_parallel_replica(self, gradient):
        """Parameters of a replica and its submodules are plain attributes, computed from those of the module."""
        net = SmallNet()
        inputs = [net.inner.weight, net.inner.bias, net.twice]
        assert not list(replica_of(net).parameters())
        assert_as_backprop(lambda g, params: solve(replica_of(net), gradient=g), inputs, gradient)


def replica_of(module):
    """Return the replica that DataParallel makes for another device, on the same device."""
    replica = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(replica, name, replica_of(child))
    for name, p in module.named_parameters(recurse=False):
        setattr(replica, name, p * 1.0)
    return replica


class TestParams:
    """Tensors that func uses and that are in no module of its own."""

    @every_gradient
    def test_may_be_computed_by_a_hypernetwork(self, gradient):
        torch.manual_seed(0)
        hyper, code = nn.Linear(2, 12).double(), leaf(2)

        def solution(g, pass_on):
            generated = torch.tanh(hyper(code))
            weight, bias = generated[:9].reshape(3, 3), generated[9:]
            params = (weight, bias) if pass_on else ()
            return solve(lambda t, y: torch.tanh(y @ weight + bias), gradient=g, params=params)

        for passed_on in (False, True):
            assert_as_backprop(solution, [hyper.weight, hyper.bias, code], gradient, params=passed_on)

    @every_gradient
    def test_are_added_to_a_modules_own_and_may_repeat_them(self, gradient):
        class Scaled(nn.Module):
            def __init__(self, scale):
                super().__init__()
                self.net = SmallNet()
                self.scale = [scale]  # in a list, so that parameters() does not find it

            def forward(self, t, y):
                return self.scale[0] * self.net(t, y)

        scale = leaf(3)
        net = Scaled(scale)
        assert_as_backprop(
            lambda g, params: solve(net, gradient=g, params=params),
            [scale, net.net.twice, net.net.inner.weight],
            gradient,
            params=(scale, net.net.twice, scale),
        )

    @every_gradient
    def test_may_include_y0(self, gradient):
        torch.manual_seed(0)
        encoder, net = nn.Linear(3, 3).double(), SmallNet()

        def solution(g, pass_on):
            code = torch.tanh(encoder(start()))
            params = (code, *net.parameters()) if pass_on else ()
            return solve(lambda t, y: net(t, y) + code, code, gradient=g, params=params)

        for passed_on in (False, True):
            assert_as_backprop(solution, [encoder.weight, net.inner.weight], gradient, params=passed_on)

    @every_gradient
    def test_may_include_the_times(self, gradient):
        t, weight = T.clone().requires_grad_(), leaf(3)

        def solution(g, params):
            return sa.odeint(
                lambda time, y: weight * y * torch.cos(time - t[-1]), start(), t, gradient=g, params=params, **LOOSE
            )

        for params in ((), (weight,), (t, weight)):
            assert_as_backprop(solution, [t, weight], gradient, params=params)

    @every_gradient
    def test_that_func_does_not_use_get_none(self, gradient):
        weight, idle = leaf(3), leaf(2)
        ys = solve(lambda t, y: weight * y, gradient=gradient, params=(idle, weight))
        of_weight, of_idle = torch.autograd.grad(ys.sum(), [weight, idle], allow_unused=True)
        assert of_weight is not None and of_idle is None

    @pytest.mark.parametrize(
        "given",
        [
            lambda net: net,
            lambda net: net.parameters(),
            lambda net: (p for p in net.parameters()),
            lambda net: dict(net.named_parameters()).values(),
            lambda net: nn.ParameterList(net.parameters()),
        ],
    )
    def test_may_be_a_module_or_any_iterable_also_for_several_solves(self, given):
        net = SmallNet()
        holder = [net]

        def func(t, y):
            return holder[0](t, y)

        layer = sa.NeuralODE(func, params=given(net), **FIXED)
        inputs = [net.inner.weight, net.outer.bias]
        expected = torch.autograd.grad(weighted_loss(sa.odeint(net, start(), T, **FIXED)), inputs)
        for _ in range(2):
            found = torch.autograd.grad(weighted_loss(layer(start(), T)), inputs)
            assert all(relative_error(a, b) < ROUNDING for a, b in zip(found, expected, strict=True))
        assert sa.check_gradient(func, start(), T, params=given(net), **FIXED).ok
