"""torch.func and forward-mode differentiation apply to a solve as to any other operation, or are refused."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

# torch's own forward-mode rules still use torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness
GRIDS = {
    "fixed": {"method": "rk4", "options": {"step_size": 0.2}},
    "embedded-fixed": {"method": "dopri5", "options": {"step_size": 0.25}},
    "adaptive": {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5},
}
FIXED = GRIDS["fixed"]

NET = SmallNet()
PARAMETERS = {name: p.detach() for name, p in NET.named_parameters()}

exact_gradients = pytest.mark.parametrize("gradient", EXACT)
every_grid = pytest.mark.parametrize("grid", GRIDS)


def solve(parameters, y0, t=T, *, gradient, **grid):
    """Solve, with all that the solution depends on as arguments: torch.func differentiates by arguments only."""
    params = tuple(parameters.values())
    return sa.odeint(
        lambda t, y: functional_call(NET, parameters, (t, y)), y0, t, gradient=gradient, params=params, **grid
    )


def loss(parameters, y0, t=T, *, gradient, **grid):
    return weighted_loss(solve(parameters, y0, t, gradient=gradient, **grid))


def plain_gradients(grid):
    """dL/d(parameters, y0, t) by torch.autograd, which test_exactness checks."""
    parameters = {name: p.clone().requires_grad_() for name, p in PARAMETERS.items()}
    y0, t = start().requires_grad_(), T.clone().requires_grad_()
    value = loss(parameters, y0, t, gradient="symplectic", **grid)
    bars = torch.autograd.grad(value, [*parameters.values(), y0, t], allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, bars[:-2], strict=True)), bars[-2], bars[-1]


def assert_close(got, expected, bound=ROUNDING):
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        got, expected = got.values(), expected.values()
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors


def inner(tangents, bars):
    return sum((tangent * bar).sum() for tangent, bar in zip(tangents, bars, strict=True))


@every_grid
@exact_gradients
class TestFirstDerivatives:
    """First derivatives of fixed and adaptive solves, against torch.autograd."""

    def test_by_grad(self, gradient, grid):
        parameters, y0, t = grad(loss, argnums=(0, 1, 2))(PARAMETERS, start(), T, gradient=gradient, **GRIDS[grid])
        expected, expected_y0, expected_t = plain_gradients(GRIDS[grid])
        assert_close(parameters, expected)
        assert_close([y0, t], [expected_y0, expected_t])

    def test_by_vjp(self, gradient, grid):
        y0 = start()
        ys, pull = vjp(lambda y0: solve(PARAMETERS, y0, gradient=gradient, **GRIDS[grid]), y0)
        weights = torch.linspace(-1.0, 2.0, ys.numel(), dtype=ys.dtype).reshape(ys.shape)
        leaf = y0.clone().requires_grad_()
        plain = solve(PARAMETERS, leaf, gradient="symplectic", **GRIDS[grid])
        assert_close([ys], [plain])  # the same sums in another order
        assert_close(pull(weights), torch.autograd.grad(plain, leaf, weights))

    def test_by_jvp(self, gradient, grid):
        def value(parameters, y0, t):
            return loss(parameters, y0, t, gradient=gradient, **GRIDS[grid])

        tangents = {name: torch.sin(3.0 * p) for name, p in PARAMETERS.items()}, start(seed=5), T.cos()
        _, rate = jvp(value, (PARAMETERS, start(), T), tangents)
        parameters, y0, t = plain_gradients(GRIDS[grid])
        expected = inner(tangents[0].values(), parameters.values()) + inner(tangents[1:], (y0, t))
        assert_close([rate], [expected])

    def test_by_dual_numbers(self, gradient, grid):
        tangent, turned = start(seed=5), torch.linspace(1.0, 2.0, 3, dtype=torch.float64)
        with forward_ad.dual_level():
            y0 = forward_ad.make_dual(start(), tangent)
            parameters = PARAMETERS | {"twice": forward_ad.make_dual(PARAMETERS["twice"], turned)}
            rate = forward_ad.unpack_dual(loss(parameters, y0, gradient=gradient, **GRIDS[grid])).tangent
        expected, expected_y0, _ = plain_gradients(GRIDS[grid])
        assert_close([rate], [inner((tangent, turned), (expected_y0, expected["twice"]))])


@exact_gradients
@pytest.mark.parametrize("grid", ["fixed", "adaptive"])
class TestSecondDerivatives:
    def expected(self, grid, y0):
        """Return the Hessian, each row by a second backward pass."""
        leaf = y0.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            loss(PARAMETERS, leaf, gradient="backprop", **GRIDS[grid]), leaf, create_graph=True
        )
        return torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in first])

    def test_by_hessian(self, gradient, grid):
        y0 = start()[0]
        got = hessian(lambda y0: loss(PARAMETERS, y0, gradient=gradient, **GRIDS[grid]))(y0)
        assert_close([got], [self.expected(grid, y0)], bound=1e-11)  # another order of derivatives

    def test_by_grad_of_grad(self, gradient, grid):
        y0, direction = start()[0], torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        first = grad(lambda y0: loss(PARAMETERS, y0, gradient=gradient, **GRIDS[grid]))
        got = grad(lambda y0: first(y0) @ direction)(y0)
        assert_close([got], [self.expected(grid, y0) @ direction], bound=1e-11)


@exact_gradients
@pytest.mark.parametrize("grid", ["fixed", "embedded-fixed"])
class TestVmapOnAFixedGrid:
    """Each sample gets the result of a solve of its own: batched operations may run in another order, no more."""

    def test_over_states(self, gradient, grid):
        y0 = start(batch=3)
        got = vmap(lambda y: solve(PARAMETERS, y, gradient=gradient, **GRIDS[grid]))(y0)
        expected = torch.stack([solve(PARAMETERS, y, gradient=gradient, **GRIDS[grid]) for y in y0])
        assert_close([got], [expected])

    def test_over_parameters(self, gradient, grid):
        y0, scales = start(batch=2), [0.5, 1.0, 1.5]
        models = [{name: scale * p for name, p in PARAMETERS.items()} for scale in scales]
        stacked = {name: torch.stack([model[name] for model in models]) for name in PARAMETERS}
        got = vmap(lambda model: solve(model, y0, gradient=gradient, **GRIDS[grid]))(stacked)
        expected = torch.stack([solve(model, y0, gradient=gradient, **GRIDS[grid]) for model in models])
        assert_close([got], [expected])

    def test_of_a_gradient_gives_the_gradient_of_each_sample(self, gradient, grid):
        y0 = start(batch=3)
        of_sample = grad(lambda parameters, y: loss(parameters, y, gradient=gradient, **GRIDS[grid]))
        got = vmap(of_sample, in_dims=(None, 0))(PARAMETERS, y0)
        for i, y in enumerate(y0):
            assert_close({name: bar[i] for name, bar in got.items()}, of_sample(PARAMETERS, y))

    def test_inside_another(self, gradient, grid):
        y0 = start(batch=4).reshape(2, 2, 3)
        got = vmap(vmap(lambda y: solve(PARAMETERS, y, gradient=gradient, **GRIDS[grid])))(y0)
        expected = torch.stack([solve(PARAMETERS, y, gradient=gradient, **GRIDS[grid]) for y in y0.reshape(4, 3)])
        assert_close([got.reshape(expected.shape)], [expected])

    def test_over_the_parts_of_a_structured_state(self, gradient, grid):
        def field(t, state):
            return {"x": state["p"], "p": -torch.sin(state["x"])}

        def orbit(x, p):
            return sa.odeint(field, {"x": x, "p": p}, T, gradient=gradient, **GRIDS[grid])

        x, p = start(batch=3), start(batch=3, seed=2)
        got = vmap(orbit)(x, p)
        for i in range(3):
            alone = orbit(x[i], p[i])
            assert_close({name: part[i] for name, part in got.items()}, alone)


@exact_gradients
def test_jacobians_of_forward_mode_reverse_mode_and_batched_cotangents_agree(gradient):
    y0 = start(batch=2)

    def ys(y0):
        return solve(PARAMETERS, y0, gradient=gradient, **FIXED)

    expected = torch.autograd.functional.jacobian(ys, y0)  # row by row
    assert_close([jacrev(ys)(y0)], [expected])
    assert_close([jacfwd(ys)(y0)], [expected])
    assert_close([torch.autograd.functional.jacobian(ys, y0, vectorize=True)], [expected])


@exact_gradients
def test_a_transform_does_not_affect_gradients_outside_it(gradient):
    y0 = start().requires_grad_()
    before = torch.autograd.grad(loss(PARAMETERS, y0, gradient=gradient, **FIXED), y0)
    grad(loss)(PARAMETERS, start(), gradient=gradient, **FIXED)
    assert torch.equal(torch.autograd.grad(loss(PARAMETERS, y0, gradient=gradient, **FIXED), y0)[0], before[0])


@exact_gradients
@pytest.mark.parametrize("grid", ["fixed", "adaptive"])
def test_dropout_under_a_transform_uses_one_mask_per_solve(grid, gradient):
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.dropout = nn.Linear(3, 3).double(), nn.Dropout(0.4)

        def forward(self, t, y):
            return self.dropout(self.linear(y))

    func = Dropped()

    def value(y0):
        return weighted_loss(sa.odeint(func, y0, T, gradient=gradient, **GRIDS[grid]))

    torch.manual_seed(3)
    got = grad(value)(start())
    leaf = start().requires_grad_()
    torch.manual_seed(3)
    assert_close([got], torch.autograd.grad(value(leaf), leaf))


class TestRefusedByName:
    @exact_gradients
    def test_vmap_of_adaptive_steps(self, gradient):
        with pytest.raises(sa.UnsupportedCombination, match=r"vmap needs a fixed grid.*give step_size in options"):
            vmap(lambda y: solve(PARAMETERS, y, gradient=gradient, **GRIDS["adaptive"]))(start())

    @exact_gradients
    def test_vmap_of_a_gradient_of_adaptive_steps(self, gradient):
        with pytest.raises(sa.UnsupportedCombination, match="vmap needs a fixed grid"):
            vmap(grad(lambda y: loss(PARAMETERS, y, gradient=gradient, **GRIDS["adaptive"])))(start())

    @exact_gradients
    def test_vmap_of_adaptive_steps_over_parameters(self, gradient):
        stacked = {name: torch.stack([p, 2.0 * p]) for name, p in PARAMETERS.items()}
        with pytest.raises(sa.UnsupportedCombination, match="vmap needs a fixed grid"):
            vmap(lambda model: solve(model, torch.ones(3).double(), gradient=gradient, **GRIDS["adaptive"]))(stacked)

    @exact_gradients
    @every_grid
    def test_vmap_over_times(self, grid, gradient):
        times = torch.stack([T, 2.0 * T])
        with pytest.raises(sa.UnsupportedCombination, match="t must be the same for all samples of a vmap"):
            vmap(lambda t: solve(PARAMETERS, torch.ones(3).double(), t, gradient=gradient, **GRIDS[grid]))(times)

    @pytest.mark.parametrize("gradient", STANDARD)
    @pytest.mark.parametrize("transform", [grad, lambda f: vmap(grad(f)), lambda f: jacfwd(f)])
    def test_events(self, transform, gradient):
        def time(y0):
            return sa.odeint(
                NET, y0, T[[0, 2]], event_fn=lambda t, y: t - 0.5, gradient=gradient, **GRIDS["fixed"]
            )[0]  # fmt: skip

        with pytest.raises(sa.UnsupportedCombination, match=r"event_fn does not work under torch\.func"):
            transform(time)(start())

    def test_events_with_dual_numbers(self):
        with forward_ad.dual_level(), pytest.raises(sa.UnsupportedCombination, match="event_fn does not work under"):
            y0 = forward_ad.make_dual(start(), start())
            sa.odeint(NET, y0, T[[0, 2]], event_fn=lambda t, y: t - 0.5)

    @pytest.mark.parametrize("grid", ["fixed", "adaptive"])
    @pytest.mark.parametrize(
        "transform", [grad, lambda f: lambda y: vjp(f, y), lambda f: lambda y: jvp(f, (y,), (y,)), hessian]
    )
    def test_the_continuous_gradient(self, transform, grid):
        with pytest.raises(sa.UnsupportedCombination, match=r"torch\.func and forward mode need an exact gradient"):
            transform(lambda y: loss(PARAMETERS, y, gradient="continuous", **GRIDS[grid]))(start())

    def test_the_continuous_gradient_with_dual_numbers(self):
        with (
            forward_ad.dual_level(),
            pytest.raises(sa.UnsupportedCombination, match=r"torch\.func and forward mode need an exact gradient"),
        ):
            solve(PARAMETERS, forward_ad.make_dual(start(), start()), gradient="continuous", **FIXED)
