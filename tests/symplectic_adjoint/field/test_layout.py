"""States of any structure, shape and precision."""

from collections import namedtuple

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.field.layout import Layout
from tests.fields import start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

ROUNDING = 1e-12  # as in test_exactness
T = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
Pair = namedtuple("Pair", "x v")


def leaf(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def coupled(a, b, t):
    """Return the slopes of two coupled parts of different shapes."""
    return torch.sin(t) * a + b.mean(), b * a.mean() - 0.3 * b


STRUCTURES = {
    "tuple": (lambda a, b: (a, b), lambda y: (y[0], y[1])),
    "list": (lambda a, b: [a, b], lambda y: (y[0], y[1])),
    "dict": (lambda a, b: {"b": b, "a": a}, lambda y: (y["a"], y["b"])),
    "nested": (lambda a, b: {"pair": (a, [b])}, lambda y: (y["pair"][0], y["pair"][1][0])),
    "named tuple": (lambda a, b: Pair(a, b), lambda y: (y.x, y.v)),
}


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structured_state_is_the_flat_one(name, gradient):
    pack, parts = STRUCTURES[name]
    a, b = leaf(2, 3), leaf(4, seed=2)
    keywords = {"rtol": 1e-5, "atol": 1e-5, "gradient": gradient}
    if sa.GRADIENTS[gradient].exact:
        keywords |= {"method": "rk4", "options": {"step_size": 0.1}}

    def flat(t, y):
        da, db = coupled(y[:6].reshape(2, 3), y[6:], t)
        return torch.cat([da.reshape(-1), db])

    ys = sa.odeint(lambda t, y: pack(*coupled(*parts(y), t)), pack(a, b), T, **keywords)
    assert type(ys) is type(pack(a, b))
    ya, yb = parts(ys)
    assert ya.shape == (3, 2, 3) and yb.shape == (3, 4)
    expected = sa.odeint(flat, torch.cat([a.reshape(-1), b]), T, **keywords)
    exact = sa.GRADIENTS[gradient].exact
    bound = ROUNDING if exact else 1e-3  # the norm of a structure takes other steps
    assert relative_error(torch.cat([ya.reshape(3, -1), yb], 1), expected) < bound
    got = torch.autograd.grad(weighted_loss(torch.cat([ya.reshape(3, -1), yb], 1)), [a, b])
    for x, y in zip(got, torch.autograd.grad(weighted_loss(expected), [a, b]), strict=True):
        assert relative_error(x, y) < bound


def test_each_part_keeps_its_own_dtype():
    seen = []

    def func(t, y):
        seen.append((t.dtype, y[0].dtype, y[1].dtype))
        return -y[0], y[1] * 0.5

    y0 = (leaf(3, dtype=torch.float32), leaf(2))
    ys = sa.odeint(func, y0, T, rtol=1e-6, atol=1e-6)
    assert [y.dtype for y in ys] == [torch.float32, torch.float64]
    assert set(seen) == {(torch.float64, torch.float32, torch.float64)}
    assert ys[1][-1].detach().numpy() == pytest.approx((y0[1] * torch.tensor(0.5).exp()).detach().numpy(), rel=1e-5)


def test_a_looser_tolerance_of_one_part_allows_longer_steps():
    def func(t, y):
        return {"slow": -y["slow"], "fast": torch.cos(40.0 * t) + 0.0 * y["fast"]}

    y0 = {"slow": leaf(2), "fast": leaf(2, seed=2)}
    tight = sa.solve(func, y0, T, rtol=1e-8, atol=1e-8)
    loose = sa.solve(func, y0, T, rtol=1e-8, atol={"slow": 1e-8, "fast": 1e-1})
    by_component = sa.solve(func, y0, T, rtol=1e-8, atol={"slow": torch.tensor([1e-8, 1e-8]), "fast": 1e-1})
    assert loose.stats.accepted < tight.stats.accepted / 2
    assert by_component.stats.accepted == loose.stats.accepted


def test_a_tensor_of_tolerances_broadcasts_to_y0():
    atol = torch.tensor([1e-8, 1e-2, 1e-8])
    ys = sa.odeint(lambda t, y: -y, leaf(4, 3), T, atol=atol)
    assert ys.shape == (3, 4, 3)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_gradients_are_those_of_autograd(dtype, gradient):
    w, y0 = leaf(3, 3, seed=3, dtype=dtype), (leaf(2, 3).detach() * (1 + 0.5j)).to(dtype).requires_grad_()
    t = T.clone().requires_grad_()

    def gradients(gradient):
        ys = sa.odeint(
            lambda t, y: (y @ w) * torch.cos(t) - 1j * y, y0, t, rtol=1e-4, atol=1e-4, gradient=gradient, params=(w,)
        )
        return torch.autograd.grad(weighted_loss(torch.view_as_real(ys)), [y0, w, t])

    # complex64 resolves 1e-7, of which a few hundred operations keep two digits less.
    bound = ROUNDING if dtype == torch.complex128 else 1e-5
    for got, expected in zip(gradients(gradient), gradients("backprop"), strict=True):
        assert relative_error(got, expected) < bound


def test_complex_gradients_agree_with_central_differences():
    y0 = (leaf(2).detach() * (1 + 0.5j)).requires_grad_()
    t = T.clone().requires_grad_()

    def ys(y0, t):
        return sa.odeint(lambda t, y: 1j * y * y * torch.cos(t), y0, t, method="rk4", options={"step_size": 0.05})

    assert torch.autograd.gradcheck(ys, (y0, t), atol=1e-6)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype, gradient):
    """A thousand steps of 1e-3: each increment is below half a unit in the last place of a half precision state."""
    seen = set()

    def func(t, y):
        seen.add((t.dtype, y.dtype))
        return torch.ones_like(y)

    y0 = torch.full((2,), 4.0, dtype=dtype, requires_grad=True)
    ys = sa.odeint(func, y0, T[::2], method="euler", options={"step_size": 1e-3}, gradient=gradient)
    assert ys.dtype == dtype and seen == {(dtype, dtype)}
    assert ys[-1].tolist() == [5.0, 5.0]
    (of_y0,) = torch.autograd.grad(ys[-1].sum(), y0)
    assert of_y0.dtype == dtype and of_y0.tolist() == [1.0, 1.0]


# Autograd itself sums those of backprop and baseline.
@pytest.mark.parametrize("gradient", [name for name in EXACT if name not in ("backprop", "baseline")])
def test_gradients_of_half_precision_parameters_are_summed_in_float32(gradient):
    rate = torch.tensor(1e-3, dtype=torch.bfloat16, requires_grad=True)
    y0 = torch.ones(1, dtype=torch.bfloat16)
    options = {"step_size": 1e-3}
    ys = sa.odeint(
        lambda t, y: rate * torch.ones_like(y), y0, T[::2], method="euler", options=options, gradient=gradient,
        params=(rate,),
    )  # fmt: skip
    ys[-1].float().sum().backward()
    # The exact sum is 1. In bfloat16 it would stop at 0.5, where 1e-3 is less than half a unit in the last place.
    assert rate.grad.item() == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("gradient", STANDARD)
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_an_empty_batch_has_empty_outputs_and_zero_gradients(method, gradient):
    w = leaf(3, 3)
    y0 = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    ys = sa.odeint(lambda t, y: y @ w, y0, T, method=method, gradient=gradient, params=(w,))
    assert ys.shape == (3, 0, 3)
    (of_w,) = torch.autograd.grad(ys.sum(), [w], allow_unused=True)
    assert of_w is None or not of_w.any()


@pytest.mark.parametrize("method", ["dopri5", "rk4", "dopri8"])
@pytest.mark.parametrize("gradient", STANDARD)
def test_a_single_time_returns_the_start(gradient, method):
    y0 = leaf(2)
    t = T[:1].clone().requires_grad_()
    ys = sa.odeint(lambda t, y: -y, y0, t, method=method, gradient=gradient)
    assert torch.equal(ys, y0.unsqueeze(0))
    of_y0, of_t = torch.autograd.grad(ys.sum(), [y0, t], allow_unused=True)
    assert of_y0.tolist() == [1.0, 1.0] and (of_t is None or not of_t.any())


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda t, y: y, "func's output"),
        (
            lambda t, y: {"a": y["a"]},
            r"func's output must be a dict with the keys \['a', 'b'\] of y0, got keys \['a'\]",
        ),
        (lambda t, y: {"a": y["a"], "b": y["b"][0]}, r"tensor like y\['b'\] \(shape \(4,\).*got shape \(\)"),
        (lambda t, y: {"a": y["a"], "b": y["b"] + 0j}, r"like y\['b'\].*torch.complex128.*only its precision may"),
        (lambda t, y: {"a": y["a"], "b": y["b"].long()}, r"like y\['b'\].*torch.int64: only its precision may"),
        (lambda t, y: {"a": y["a"], "b": None}, r"func's output\['b'\] must be a tensor, got NoneType"),
    ],
)
def test_a_part_of_funcs_value_that_is_unlike_the_states_is_named(func, message):
    y0 = {"a": leaf(2, 3), "b": leaf(4)}
    wrong = (lambda t, y: (y["a"], y["b"])) if message == "func's output" else func
    with pytest.raises((TypeError, ValueError), match=message):
        sa.odeint(wrong, y0, T)


@pytest.mark.parametrize(
    ("y0", "message"),
    [
        ((), "y0 must have at least one tensor"),
        ((torch.ones(2), torch.ones(2, dtype=torch.complex64)), "all real or all complex"),
        ({"a": torch.ones(2, dtype=torch.int32)}, r"y0\['a'\] must be a floating point or complex tensor"),
        ((torch.ones(2), torch.tensor([1.0, torch.nan])), r"y0 is not finite: component \(1,\) of y\[1\] is nan"),
    ],
)
def test_a_state_that_cannot_be_solved_for_is_named(y0, message):
    with pytest.raises((ValueError, sa.NonFiniteError), match=message):
        sa.odeint(lambda t, y: y, y0, T)


@pytest.mark.parametrize(
    ("y0", "tolerance", "message"),
    [
        ((start(), start()), (1e-3,), "atol must be a tuple or list of 2 parts like y0, got 1 parts"),
        ((start(), start()), (1e-3, -1.0), "atol must be at least 0 and finite, got -1"),
        ((start(), start()), (1e-3, torch.ones(5)), r"atol\[1\] has shape \(5,\), which does not broadcast"),
        ((start(), start()), torch.ones(3), "atol must be a tuple or list of 2 parts like y0, got 3 parts"),
        (start(), (1e-3, 1e-3), r"atol has shape \(2,\), which does not broadcast to y0's \(4, 3\)"),
        (start(), torch.ones(3, requires_grad=True), "atol requires a gradient"),
        (start(), torch.ones(7), r"atol has shape \(7,\), which does not broadcast to y0's \(4, 3\)"),
    ],
)
def test_a_tolerance_that_does_not_fit_is_named(y0, tolerance, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sa.odeint(lambda t, y: y, y0, T, atol=tolerance)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ((torch.full((4,), 3.0), torch.full((2, 2), 5.0), torch.zeros(7)), 5.0),
        ((torch.full((4,), 3.0), torch.tensor(2.0)), 3.0),
        ({"a": torch.tensor([3.0, 4.0]), "b": {"c": torch.tensor([1.0])}}, 12.5**0.5),
        ([torch.zeros(0), torch.tensor([-2.0])], 2.0),
        ((torch.zeros(0),), 0.0),
    ],
)
def test_the_norm_of_a_structure_is_that_of_its_worst_part(state, expected):
    """The largest of the root mean squares of its parts, torchdiffeq's norm of a tuple."""
    layout = Layout(state)
    assert layout.norm(layout.pack(state)).item() == pytest.approx(expected, rel=1e-6)  # float32
