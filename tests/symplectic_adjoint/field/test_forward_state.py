"""A gradient belongs to its own solve, even if func, its module or the generators change afterwards."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field.graph import walk_edges
from tests.gradients import EXACT
from tests.oracle import relative_error

ROUNDING = 1e-12  # as in test_exactness
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
RK4 = {"method": "rk4", "options": {"step_size": 0.25}}


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))

    def forward(self, t, y):
        return -self.rate * y


class Conditioned(Decay):
    """Its context is a plain attribute that the caller sets for each solve."""

    def forward(self, t, y):
        return -self.rate * y * self.context


class Noisy(Decay):
    """ForwardRng its noise once, in its first call after noise was cleared."""

    noise = None

    def forward(self, t, y):
        if self.noise is None:
            self.noise = torch.randn(2, dtype=torch.float64)
        return -self.rate * y * self.noise


def ones(**keywords):
    return torch.ones(2, dtype=torch.float64, **keywords)


@pytest.mark.parametrize("gradient", EXACT)
def test_functional_call_around_a_model_that_contains_a_solve(gradient):
    """The module has its own parameters again when the backward pass begins."""

    def gradients(gradient):
        rate, y0 = 3.0 * ones().requires_grad_(), ones(requires_grad=True)
        leaf = rate.detach().requires_grad_()
        model = sa.NeuralODE(Decay(), gradient=gradient, **RK4)
        ys = torch.func.functional_call(model, {"func.rate": leaf}, (y0, T))
        return torch.autograd.grad(ys[-1].sum(), (y0, leaf))

    for got, expected in zip(gradients(gradient), gradients("backprop"), strict=True):
        assert relative_error(got, expected) < ROUNDING


@pytest.mark.parametrize("gradient", EXACT)
def test_an_inner_training_step_is_differentiated(gradient):
    """One step of MAML: the outer gradient goes through the parameters that the inner one made."""

    def outer(gradient):
        model = sa.NeuralODE(Decay(), gradient=gradient, **RK4)
        (rate,) = model.parameters()
        (inner,) = torch.autograd.grad(model(ones(), T)[-1].square().sum(), rate, create_graph=True)
        ys = torch.func.functional_call(model, {"func.rate": rate - 0.1 * inner}, (ones(), T))
        return torch.autograd.grad(ys[-1].sum(), rate)[0]

    assert relative_error(outer(gradient), outer("backprop")) < 10 * ROUNDING  # second derivatives


@pytest.mark.parametrize("gradient", EXACT)
def test_each_solve_has_the_attribute_that_was_set_before_it(gradient):
    def gradients(gradient):
        func, loss = Conditioned(), 0.0
        for context in (1.0, -2.0):
            func.context = torch.tensor(context, dtype=torch.float64)
            loss = loss + sa.odeint(func, ones(), T, gradient=gradient, **RK4)[-1].sum()
        return torch.autograd.grad(loss, func.rate)[0]

    assert relative_error(gradients(gradient), gradients("backprop")) < ROUNDING


@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca", "baseline"])
def test_an_attribute_changed_in_place_between_the_passes_raises(gradient):
    func = Conditioned()
    func.context = torch.tensor(1.0, dtype=torch.float64)
    ys = sa.odeint(func, ones(), T, gradient=gradient, **RK4)
    func.context.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


@pytest.mark.parametrize("gradient", EXACT)
def test_noise_that_func_draws_once_differs_in_the_next_solve(gradient):
    func, seen = Noisy(), []
    for _ in range(3):
        func.noise = None
        ys = sa.odeint(func, ones(requires_grad=True), T, gradient=gradient, **RK4)
        seen.append(func.noise)
        ys.sum().backward()
    seen.append(torch.randn(2, dtype=torch.float64))
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_a_solve_that_fails_does_not_rewind_the_generators():
    drawn = []

    def func(t, y):
        drawn.append(torch.rand(2, dtype=torch.float64))
        if len(drawn) > 3:
            raise KeyError("func's own")
        return y * drawn[-1]

    with pytest.raises(KeyError):
        sa.odeint(func, ones(), T, **RK4)
    assert torch.equal(drawn[0], drawn[1])  # one solve, one draw
    assert not torch.equal(torch.rand(2, dtype=torch.float64), drawn[0])


@pytest.mark.parametrize("gradient", EXACT)
def test_a_hook_registered_after_the_solve_sees_the_whole_gradient_once(gradient):
    func, seen = Decay(), []
    ys = sa.odeint(func, ones(), T, gradient=gradient, **RK4)
    func.rate.register_hook(seen.append)
    ys.sum().backward()
    assert len(seen) == 1 and torch.equal(seen[0], func.rate.grad)


@pytest.mark.parametrize("gradient", EXACT)
def test_a_parameter_frozen_after_the_solve_leaves_the_others_their_gradients(gradient):
    func, y0 = Decay(), ones(requires_grad=True)
    ys = sa.odeint(func, y0, T, gradient=gradient, **RK4)
    expected = torch.autograd.grad(ys.sum(), y0, retain_graph=True)[0]
    func.rate.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(ys.sum(), y0)[0], expected)


class Remembering(Decay):
    """Computes a value from its parameter in the second call, without a graph, and caches it."""

    calls = 0

    def forward(self, t, y):
        self.calls += 1
        if self.calls == 2:
            self.kept = self.rate.exp()
        return -(self.kept if self.calls > 1 else self.rate.exp()) * y


@pytest.mark.parametrize("gradient", [name for name in EXACT if name != "backprop"])
def test_a_parameter_whose_value_func_caches_in_its_first_call_is_reported_as_lost(gradient):
    func = Remembering()
    ys = sa.odeint(func, ones(), T, gradient=gradient, **RK4)
    with pytest.raises(sa.LostGradient, match="anew in each call"):
        ys.sum().backward()


@pytest.mark.parametrize("graphs", [1, 5, 7])
def test_a_value_that_func_caches_in_a_call_without_a_graph_is_reported_as_lost(graphs):
    """Only the last calls of a known number of steps are on a graph, and the second is not among them."""
    ys = sa.odeint(Remembering(), ones(), T, gradient=sa.Symplectic(graphs=graphs), **RK4)
    with pytest.raises(sa.LostGradient, match="anew in each call"):
        ys.sum().backward()


@pytest.mark.parametrize("graphs", [15, 16, 100])
def test_a_value_that_func_caches_with_its_graph_passes_the_gradient_on(graphs):
    """Where so many graphs are held that every call is on one, also those whose graph is given up."""
    got, expected = Remembering(), Remembering()
    sa.odeint(got, ones(), T, gradient=sa.Symplectic(graphs=graphs), **RK4).sum().backward()
    sa.odeint(expected, ones(), T, gradient="backprop", **RK4).sum().backward()
    assert relative_error(got.rate.grad, expected.rate.grad) < ROUNDING


@pytest.mark.parametrize("gradient", EXACT)
def test_a_parameter_that_func_uses_at_one_time_only_is_not_lost(gradient):
    class Early(Decay):
        def forward(self, t, y):
            return -self.rate * y if t < 0.1 else -y

    func, y0 = Early(), ones(requires_grad=True)
    ys = sa.odeint(func, y0, T, gradient=gradient, **RK4)
    ys[-1].sum().backward()
    assert func.rate.grad is not None and bool(func.rate.grad.abs().sum() > 0)
    func.rate.grad = None
    sa.odeint(func, y0, T, gradient=gradient, **RK4)[0].sum().backward()  # nothing depends on the steps


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of its own weight_norm
@pytest.mark.parametrize("gradient", [*EXACT, sa.Symplectic(graphs=7)])
def test_a_value_that_a_hook_computes_from_a_parameter_does_not_keep_a_parameter_alias(gradient):
    """Old-style weight_norm leaves the weight of the last call in the module, with its graph."""
    func = torch.nn.utils.weight_norm(nn.Linear(2, 2, dtype=torch.float64))
    with torch.enable_grad():
        func(ones())
    sa.odeint(
        lambda t, y: func(y), ones(), T, gradient=gradient, params=list(func.parameters()), **RK4
    ).sum().backward()
    nodes = [node for node, _ in walk_edges([(func.weight.grad_fn, 0)], ())]
    leaves = {id(node.variable) for node in nodes if hasattr(node, "variable")}
    has_a_graph = gradient == "backprop" or isinstance(gradient, sa.Symplectic)  # of the last call forward
    assert leaves == ({id(func.weight_g), id(func.weight_v)} if has_a_graph else set())


@pytest.mark.parametrize("gradient", EXACT)
def test_batched_cotangents_give_a_jacobian(gradient):
    func, y0 = Decay(), ones(requires_grad=True)
    last = sa.odeint(func, y0, T, gradient=gradient, **RK4)[-1]
    batched = torch.autograd.grad(
        last, [y0, func.rate], torch.eye(2).double(), is_grads_batched=True, retain_graph=True
    )
    rows = [torch.autograd.grad(x, [y0, func.rate], retain_graph=True) for x in last]
    for i, got in enumerate(batched):
        assert torch.allclose(got, torch.stack([row[i] for row in rows]), rtol=ROUNDING)


def test_a_leaf_of_funcs_own_that_only_a_cycle_of_garbage_holds_is_not_lost():
    def energy_slope(t, y):
        x = y.detach().requires_grad_()

        def recurse(n):  # refers to itself, and so to x
            return x.sin().sum() if n == 0 else recurse(n - 1)

        with torch.enable_grad():
            (k,) = torch.autograd.grad(recurse(2), x, create_graph=True)
        return k

    assert sa.odeint(energy_slope, ones(requires_grad=True), T, **RK4).shape == (2, 2)
