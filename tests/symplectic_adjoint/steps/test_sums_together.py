"""Sums that are formed together, as on a card: the same numbers as formed in turn, whatever the state and the gradient.

They run on the CPU here, whose fused operations round otherwise than its single ones: hence the bounds.
"""

import gc
import weakref

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, odeint, solve
from symplectic_adjoint.backward import parameter_sums
from symplectic_adjoint.field import few_launches
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import Rotation, SmallNet, start, weighted_loss
from tests.gradients import EXACT
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
RUNGE_KUTTA = [name for name in EXPLICIT_METHODS if name != "leapfrog"]
T = torch.tensor([0.0, 0.37, 1.0], dtype=torch.float64)
FIXED = {"step_size": 0.25}


@pytest.fixture(autouse=True)
def on_a_card(monkeypatch):
    monkeypatch.setattr(few_launches, "DEVICES", ("cpu",))


def gradients(func, y0, t, **keywords):
    """Return ys, and the gradients in y0 and the parameters."""
    y0 = y0.detach().requires_grad_()
    ys = odeint(func, y0, t, **keywords)
    inputs = [y0, *(p for p in func.parameters() if p.requires_grad)]
    return ys, torch.autograd.grad(weighted_loss(ys.abs() if ys.is_complex() else ys), inputs, allow_unused=True)


def in_turn(monkeypatch, *args, **keywords):
    with monkeypatch.context() as patch:
        patch.setattr(few_launches, "DEVICES", ())
        return gradients(*args, **keywords)


def assert_same(got, expected, bound=ROUNDING):
    assert relative_error(got[0], expected[0]) < bound
    for a, b in zip(got[1], expected[1], strict=True):
        assert (a is None) == (b is None)
        assert a is None or relative_error(a, b) < bound


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", RUNGE_KUTTA)
@pytest.mark.parametrize("adaptive", [False, True])
def test_gradients_are_those_of_autograd_on_the_recorded_grid(method, gradient, adaptive):
    """With outputs inside steps, and cotangents of times."""
    if adaptive and not METHODS[method].adaptive:
        pytest.skip("fixed steps only")
    func, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    options = None if adaptive else FIXED
    solution = solve(func, y0, t, method=method, rtol=1e-4, atol=1e-4, options=options, gradient=gradient)
    ys, inputs = replay(func, METHODS[method], solution.grid, y0, t), [y0, t, *func.parameters()]
    got, expected = (torch.autograd.grad(weighted_loss(x), inputs, allow_unused=True) for x in (solution.ys, ys))
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING


@pytest.mark.parametrize("gradient", ["mali", "reversible", sa.Symplectic(graphs=7), sa.Symplectic(offload="cpu")])
def test_other_sweeps_give_the_same(monkeypatch, gradient):
    how = {"options": FIXED, "gradient": gradient}
    assert_same(gradients(SmallNet(), start(), T, **how), in_turn(monkeypatch, SmallNet(), start(), T, **how))


@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
def test_precise_sums_are_as_precise(monkeypatch, accumulate):
    func, y0 = SmallNet().float(), start().float()
    how = {"options": {"step_size": 0.01}, "accumulate": accumulate, "method": "rk4"}
    # The sums differ by a few float32 roundings of the states, not by those of 100 steps' terms.
    assert_same(gradients(func, y0, T, **how), in_turn(monkeypatch, func, y0, T, **how), 1e-5)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.complex128, ROUNDING), (torch.bfloat16, 0.02), (torch.float16, 0.01)]
)
@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_complex_and_half_states(monkeypatch, dtype, bound):
    """bound: in half precision a few roundings of func's values, which all steps amplify."""
    func, y0 = Rotation(dtype), torch.randn(4, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    y0 = y0.to(dtype)
    t = T if dtype.is_complex else T.to(dtype)
    how = {"options": FIXED, "method": "rk4"}
    assert_same(gradients(func, y0, t, **how), in_turn(monkeypatch, func, y0, t, **how), bound)


def test_a_transposed_state_and_slope(monkeypatch):
    """Fused operations need equal strides, or take several kernels."""

    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet(size=4)

        def forward(self, t, y):
            return self.net(t, y.mT).mT

    how = {"options": FIXED, "method": "dopri5"}
    y0 = start(batch=3, size=4).mT
    assert_same(gradients(Transposed(), y0, T, **how), in_turn(monkeypatch, Transposed(), y0, T, **how))


class Identity(nn.Module):
    """Returns y itself: k_i and Y_i are one tensor, which no sum may change."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, t, y):
        return y


def test_a_func_that_returns_its_argument(monkeypatch):
    how = {"options": FIXED, "method": "rk38"}
    assert_same(gradients(Identity(), start(), T, **how), in_turn(monkeypatch, Identity(), start(), T, **how))


def test_vmap_and_batched_cotangents():
    func, y0 = SmallNet(), start()

    def end(y):
        return odeint(func, y, T, options=FIXED)[-1]

    torch.testing.assert_close(torch.func.vmap(end)(y0), end(y0), rtol=1e-12, atol=1e-12)
    y = y0.clone().requires_grad_()
    ys, vectors = end(y), torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)
    (rows,) = torch.autograd.grad(ys, y, vectors, is_grads_batched=True, retain_graph=True)
    expected = [torch.autograd.grad(ys, y, v, retain_graph=True)[0] for v in vectors]
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own use of it
@pytest.mark.parametrize("how", [{"options": FIXED}, {"rtol": 1e-5, "atol": 1e-5}])
def test_forward_mode(monkeypatch, how):
    """Its rules lack operations that write into a given tensor."""

    def derivative():
        func, y0 = SmallNet(), start()
        return torch.func.jvp(lambda y: odeint(func, y, T, **how), (y0,), (torch.ones_like(y0),))[1]

    got = derivative()
    monkeypatch.setattr(few_launches, "DEVICES", ())
    assert relative_error(got, derivative()) < ROUNDING


def test_second_derivatives(monkeypatch):
    def second():
        func, y = SmallNet(), start().requires_grad_()
        (first,) = torch.autograd.grad(weighted_loss(odeint(func, y, T, options=FIXED)), y, create_graph=True)
        return torch.autograd.grad(first.square().sum(), y)[0]

    got = second()
    monkeypatch.setattr(few_launches, "DEVICES", ())
    assert relative_error(got, second()) < ROUNDING


def test_a_change_of_func_is_still_found():
    func, y0 = SmallNet(), start().requires_grad_()
    func.register_buffer("scale", torch.ones((), dtype=torch.float64))
    func.forward = lambda t, y: SmallNet.forward(func, t, y) * changing[0]
    changing = [1.0]
    ys = odeint(func, y0, T, options=FIXED)
    changing[0] = 1.001
    with pytest.raises(sa.FunctionChanged):
        ys.sum().backward()


def test_a_func_that_overwrites_what_it_returned_is_still_refused():
    returned = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="func wrote into a tensor that it had returned before"):
        odeint(lambda t, y: returned.copy_(y), start(), T, options=FIXED, method="rk4")


def test_the_sums_are_freed_with_the_step():
    func = SmallNet()
    alive = []

    class Watched(nn.Module):
        def forward(self, t, y):
            alive.append(weakref.ref(y))
            return func(t, y)

    with torch.no_grad():
        ys = odeint(Watched(), start(), T, method="rk4", options=FIXED)
    gc.collect()
    assert ys is not None and len(alive) == 16
    assert not any(y() is not None for y in alive[1:])  # the first is y0


class TestTheta:
    @pytest.mark.parametrize("limit", [0, 2**20])
    def test_is_summed_alike_together_and_one_by_one(self, monkeypatch, limit):
        monkeypatch.setattr(parameter_sums, "SMALL_PARAMETERS", limit)
        how = {"options": FIXED, "method": "dopri5"}
        got = gradients(SmallNet(), start(), T, **how)
        assert_same(got, in_turn(monkeypatch, SmallNet(), start(), T, **how))
        assert any(x is None for x in got[1])  # that of the unused parameter

    def test_with_a_sparse_term(self, monkeypatch):
        class Table(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.rows = nn.Embedding(5, 3, sparse=True, dtype=torch.float64)

            def forward(self, t, y):
                return torch.tanh(y) * self.rows(torch.tensor([0, 3, 3, 1]))

        how = {"options": FIXED, "method": "rk4"}
        assert_same(gradients(Table(), start(), T, **how), in_turn(monkeypatch, Table(), start(), T, **how))

    def test_with_a_parameter_that_only_late_stages_use(self, monkeypatch):
        class Late(nn.Module):
            def __init__(self):
                super().__init__()
                self.early = nn.Parameter(torch.ones(3, dtype=torch.float64))
                self.late = nn.Parameter(torch.ones(3, dtype=torch.float64))

            def forward(self, t, y):
                return -y * (self.late if t > 0.6 else self.early)

        how = {"options": FIXED, "method": "rk4"}
        assert_same(gradients(Late(), start(), T, **how), in_turn(monkeypatch, Late(), start(), T, **how))
