"""Parameters of every kind, wherever func holds them, get the right gradient, or losing it is an error."""

import gc
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
# Backprop's graph holds every tensor that func uses, known or not: it loses no gradient.
LOSING = [name for name in STANDARD if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
APPROXIMATE = 1e-2  # the continuous gradient at these tolerances; a missing or doubled one has an error of 1
LOOSE = {"rtol": 1e-5, "atol": 1e-5}
FIXED = {"method": "rk4", "options": {"step_size": 0.125}}  # a field with a jump would make adaptive steps tiny

every_gradient = pytest.mark.parametrize("gradient", STANDARD)
losing_gradients = pytest.mark.parametrize("gradient", LOSING)


@pytest.fixture(autouse=True, scope="module")
def _few_objects_to_collect():
    """Exempt existing objects from the collection of garbage that precedes LostGradient: it would take a while."""
    gc.freeze()
    yield
    gc.unfreeze()


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()


def solve(func, y0=None, *, gradient, **keywords):
    return sa.odeint(func, start() if y0 is None else y0, T, gradient=gradient, **{**LOOSE, **keywords})


def assert_as_backprop(solution, inputs, gradient, *, params=()):
    """Assert that solution(gradient, params) has the gradients of inputs that backprop has without params."""

    def grads(name, params):
        return torch.autograd.grad(weighted_loss(solution(name, params)), inputs, allow_unused=True)

    expected = grads("backprop", ())
    assert all(x is None or x.abs().sum() > 0 for x in expected)
    got = grads(gradient, params)
    assert [x is None for x in got] == [x is None for x in expected]
    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        self.second.weight = self.first.weight

    def forward(self, t, y):
        return self.second(torch.tanh(self.first(y)))


class TestAModulesOwnParameter:
    """A parameter that module.parameters() lists."""

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
        """As in torch elsewhere: a tensor that required no gradient when it was used gets none."""
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
    def test_used_at_some_times_only_gets_its_share(self, gradient):
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
    """The kinds of callables that func may be."""

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
    def test_may_be_an_object_whose_module_is_in_params(self, gradient):
        class Holder:
            def __init__(self, net):
                self.net = net

            def __call__(self, t, y):
                return self.net(t, y)

        net = SmallNet()
        if gradient in LOSING:
            with pytest.raises(sa.LostGradient):
                solve(Holder(net), gradient=gradient)
        assert_as_backprop(
            lambda g, params: solve(Holder(net), gradient=g, params=params),
            [net.inner.weight, net.twice],
            gradient,
            params=(*net.parameters(),),
        )

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

    # torch's tracer reads .grad of its inputs, and autograd warns if they are not leaves.
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
    def test_that_is_compiled_loses_no_gradient_silently(self):
        weight = leaf(3)
        torch.compiler.reset()
        compiled = torch.compile(lambda t, y: weight * y, backend="aot_eager")
        with pytest.raises(sa.LostGradient):
            solve(compiled, gradient="symplectic")
        torch.compiler.reset()

    @every_gradient
    def test_may_be_a_data_parallel_replica(self, gradient):
        """Parameters of a replica and of its submodules are plain attributes, computed from the module's."""
        net = SmallNet()
        inputs = [net.inner.weight, net.inner.bias, net.twice]
        assert not list(replica_of(net).parameters())
        assert_as_backprop(lambda g, params: solve(replica_of(net), gradient=g), inputs, gradient)


def replica_of(module):
    """Return the replica that DataParallel would run on another device, on the same device."""
    replica = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(replica, name, replica_of(child))
    for name, p in module.named_parameters(recurse=False):
        setattr(replica, name, p * 1.0)
    return replica


class TestParams:
    """Tensors that func uses and that are not parameters of its own module."""

    @every_gradient
    def test_may_be_computed_by_a_hypernetwork(self, gradient):
        torch.manual_seed(0)
        hyper, code = nn.Linear(2, 12).double(), leaf(2)

        def solution(g, pass_on):
            generated = torch.tanh(hyper(code))
            weight, bias = generated[:9].reshape(3, 3), generated[9:]
            params = (weight, bias) if pass_on else ()
            return solve(lambda t, y: torch.tanh(y @ weight + bias), gradient=g, params=params)

        if gradient in LOSING:
            with pytest.raises(sa.LostGradient):
                solution(gradient, False)
        assert_as_backprop(solution, [hyper.weight, hyper.bias, code], gradient, params=True)

    @every_gradient
    def test_may_be_given_besides_a_modules_own_and_repeat_them(self, gradient):
        class Scaled(nn.Module):
            def __init__(self, scale):
                super().__init__()
                self.net = SmallNet()
                self.scale = [scale]  # hidden from parameters()

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
    def test_may_hold_what_y0_was_computed_from_or_y0_itself(self, gradient):
        torch.manual_seed(0)
        encoder, net = nn.Linear(3, 3).double(), SmallNet()

        def solution(g, pass_on):
            code = torch.tanh(encoder(start()))
            params = (code, *net.parameters()) if pass_on else ()
            return solve(lambda t, y: net(t, y) + code, code, gradient=g, params=params)

        if gradient in LOSING:
            with pytest.raises(sa.LostGradient):
                solution(gradient, False)
        assert_as_backprop(solution, [encoder.weight, net.inner.weight], gradient, params=True)

    @every_gradient
    def test_may_hold_the_times(self, gradient):
        t, weight = T.clone().requires_grad_(), leaf(3)

        def solution(g, params):
            return sa.odeint(
                lambda time, y: weight * y * torch.cos(time - t[-1]), start(), t, gradient=g, params=params, **LOOSE
            )

        if gradient in LOSING:
            with pytest.raises(sa.LostGradient, match=r"shape \(3,\)"):
                solution(gradient, (weight,))
        assert_as_backprop(solution, [t, weight], gradient, params=(t, weight))

    @every_gradient
    def test_that_func_does_not_use_get_none(self, gradient):
        weight, idle = leaf(3), leaf(2)
        ys = solve(lambda t, y: weight * y, gradient=gradient, params=(idle, weight))
        of_weight, of_idle = torch.autograd.grad(ys.sum(), [weight, idle], allow_unused=True)
        assert of_weight is not None and of_idle is None


class TestAValueComputedFromAParameterBeforeTheSolve:
    """A value computed from a module's parameter before the solve, with a graph that every use in func shares."""

    class Cached(nn.Module):
        def __init__(self, compute):
            super().__init__()
            self.weight, self.other = nn.Parameter(leaf(3)), nn.Parameter(leaf(3, seed=1))
            self.compute = compute

        def prepare(self):
            self.cached = self.compute(self.weight)
            return self

        def forward(self, t, y):
            return torch.tanh(self.cached * y) + self.other * t * self.weight

    @every_gradient
    @pytest.mark.parametrize("compute", [lambda w: 2.0 * w, torch.exp, lambda w: torch.linalg.norm(w) * w.sin()])
    def test_passes_its_gradient_to_the_parameter(self, compute, gradient):
        net = self.Cached(compute)
        assert_as_backprop(lambda g, params: solve(net.prepare(), gradient=g), [net.weight, net.other], gradient)

    @every_gradient
    def test_may_be_used_in_the_loss_too(self, gradient):
        net = self.Cached(torch.exp)

        def solution(g, params):
            ys = solve(net.prepare(), gradient=g)
            return ys * net.cached.sum()

        assert_as_backprop(solution, [net.weight], gradient)

    @pytest.mark.parametrize("gradient", EXACT)
    def test_has_second_derivatives(self, gradient):
        net, y0 = self.Cached(torch.exp), start().requires_grad_()

        def second(gradient):
            (first,) = torch.autograd.grad(
                weighted_loss(solve(net.prepare(), y0, gradient=gradient)), y0, create_graph=True
            )
            return torch.autograd.grad(first.square().sum(), [net.weight, net.other])

        for a, b in zip(second(gradient), second("backprop"), strict=True):
            assert relative_error(a, b) < 1e-11  # another order of derivatives

    @every_gradient
    def test_may_be_used_late_only(self, gradient):
        class Late(self.Cached):
            def forward(self, t, y):
                return torch.tanh(self.cached.square() * y) if t > 0.5 else self.other * y

        net = Late(torch.exp)
        assert_as_backprop(
            lambda g, params: solve(net.prepare(), gradient=g, **FIXED), [net.weight, net.other], gradient
        )


class TestALostGradient:
    """The gradient of a tensor that func uses and that is neither a parameter nor in params."""

    def test_is_an_error_that_names_the_shape_and_the_remedy(self):
        weight = leaf(3)
        with pytest.raises(sa.LostGradient, match=r"shape \(3,\), torch.float64.*params=\(tensor,\).*or detach\(\) it"):
            solve(lambda t, y: weight * y, gradient="symplectic")

    @losing_gradients
    def test_of_a_closures_leaf_is_an_error(self, gradient):
        net, weight = SmallNet(), leaf(3)
        with pytest.raises(sa.LostGradient, match=r"shape \(3,\)"):
            solve(lambda t, y: net(t, y) * weight, gradient=gradient, params=(*net.parameters(),))

    @losing_gradients
    def test_of_a_leaf_behind_what_was_computed_outside_is_an_error(self, gradient):
        weight = leaf(5)
        computed = weight.exp()[:3] * 2.0
        with pytest.raises(sa.LostGradient, match=r"shape \(5,\)"):
            solve(lambda t, y: computed * y, gradient=gradient)

    @losing_gradients
    def test_of_a_buffer_that_requires_a_gradient_is_an_error(self, gradient):
        class Buffered(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", leaf(3))

            def forward(self, t, y):
                return self.scale * y

        with pytest.raises(sa.LostGradient, match=r"shape \(3,\)"):
            solve(Buffered(), gradient=gradient)

    @losing_gradients
    @pytest.mark.parametrize("keywords", [{"options": {"jump_t": [0.5]}}, {**FIXED, "options": {"jump_t": [0.5]}}])
    def test_of_a_leaf_that_is_first_used_after_a_jump_is_an_error_in_the_forward_pass(self, keywords, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)  # in graphs of the same size

        def func(t, y):
            return (known if t < 0.5 else unknown) * y

        with pytest.raises(sa.LostGradient):
            solve(func, gradient=gradient, params=(known,), **keywords)

    @losing_gradients
    def test_of_a_leaf_that_is_first_used_late_is_an_error_in_the_backward_pass(self, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)

        def func(t, y):
            return known * y if t < 0.5 else known * y + unknown.sin()

        ys = solve(func, gradient=gradient, params=(known,), **FIXED)
        with pytest.raises(sa.LostGradient):
            ys.sum().backward()
        assert known.grad is None

    @losing_gradients
    def test_of_a_leaf_that_is_used_early_only_is_an_error_in_the_forward_pass(self, gradient):
        known, unknown = leaf(3), leaf(3, seed=1)

        def func(t, y):
            return known * y if t > 0.5 else known * y + unknown.sin()

        with pytest.raises(sa.LostGradient):
            solve(func, gradient=gradient, params=(known,), **FIXED)

    @losing_gradients
    def test_of_one_half_of_a_chunked_tensor_is_an_error(self, gradient):
        flat = leaf(6)
        known, unknown = flat.sin().chunk(2)
        with pytest.raises(sa.LostGradient, match=r"shape \(6,\)"):
            solve(lambda t, y: known * y + unknown, gradient=gradient, params=(known,))
        assert_as_backprop(lambda g, _: _chunked(flat, g), [flat], gradient)

    @losing_gradients
    def test_is_an_error_where_only_y0_requires_a_gradient_besides(self, gradient):
        net, y0, weight = SmallNet().requires_grad_(False), start().requires_grad_(), leaf(3)
        with pytest.raises(sa.LostGradient):
            solve(lambda t, y: net(t, y) * weight, y0, gradient=gradient)

    @every_gradient
    def test_is_no_error_where_grad_mode_is_off(self, gradient):
        weight = leaf(3)
        with torch.no_grad():
            ys = solve(lambda t, y: weight * y, gradient=gradient)
        assert not ys.requires_grad

    @every_gradient
    def test_is_not_reported_for_a_leaf_that_func_makes_itself(self, gradient):
        weight = leaf(3)

        def func(t, y):
            scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
            return weight * y * scale

        solve(func, gradient=gradient, params=(weight,)).sum().backward()
        assert weight.grad is not None


def _chunked(flat, gradient):
    halves = flat.sin().chunk(2)
    return solve(lambda t, y: halves[0] * y + halves[1], gradient=gradient, params=halves)


class TestAutogradInsideFunc:
    """Derivatives of its own network that func computes."""

    class Energy(nn.Module):
        """y' = -grad E(y)."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()

        def forward(self, t, y):
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                return -torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)[0]

    class Flow(nn.Module):
        """(y, log density)' = (f, -e^T df/dy e): Hutchinson's trace with a fixed probe."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = SmallNet()
            self.register_buffer("probe", torch.randn(4, 3, dtype=torch.float64).sign())

        def forward(self, t, state):
            y, _ = state
            with torch.enable_grad():
                y = y if y.requires_grad else y.detach().requires_grad_()
                dy = self.net(t, y)
                (row,) = torch.autograd.grad(dy, y, self.probe, create_graph=True)
            return dy, -(row * self.probe).sum(1)

    @every_gradient
    def test_computes_the_slope_of_an_energy(self, gradient):
        net, y0 = self.Energy(), start().requires_grad_()
        inputs = [y0, net.energy[0].weight, net.energy[2].weight]
        assert_as_backprop(lambda g, params: solve(net, y0, gradient=g), inputs, gradient)

    @every_gradient
    def test_estimates_a_trace_with_a_probe(self, gradient):
        net, y0 = self.Flow(), start().requires_grad_()

        def solution(g, params):
            ys, logs = sa.odeint(net, (y0, torch.zeros(4, dtype=torch.float64)), T, gradient=g, **LOOSE)
            return torch.cat([ys.flatten(), logs.flatten()])

        inputs = [y0, net.net.inner.weight, net.net.outer.weight, net.net.twice]
        assert_as_backprop(solution, inputs, gradient)
        assert relative_error(solution(gradient, ()), solution("backprop", ())) == 0.0

    @every_gradient
    def test_gives_an_exact_divergence_by_torch_func(self, gradient):
        net = SmallNet()

        def func(t, state):
            y, _ = state
            jacobian = torch.func.vmap(torch.func.jacrev(lambda x: net(t, x)))(y)
            return net(t, y), -jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)

        def solution(g, params):
            y0 = start(), torch.zeros(4, dtype=torch.float64)
            return sa.odeint(func, y0, T, gradient=g, params=params, **LOOSE)[1]

        inputs = [net.inner.weight, net.outer.weight]
        assert_as_backprop(solution, inputs, gradient, params=(*net.parameters(),))
