"""Values recomputed with an implicit method: a changed func is found, and stiffness is not taken for a change."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, FunctionChanged, solve
from tests.fields import SmallNet, start
from tests.gradients import EXACT, taking_turns
from tests.stiff_fields import Hires, Robertson, StiffLinear, VanDerPol

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
RECOMPUTING = [name for name in EXACT if name not in ("backprop", "auto")]


class Scaled:
    """net(t, y) times a number in an array, which a solve does not watch."""

    def __init__(self, net):
        self.net, self.box = net, np.ones(1)

    def __call__(self, t, y):
        return self.net(t, y) * float(self.box[0])


@pytest.mark.parametrize("change", [1e-6, -1.0])
@pytest.mark.parametrize("method", ["implicit_euler", "kvaerno3", "radauIIA3", "gl6", "kencarp4"])
@pytest.mark.parametrize("gradient", RECOMPUTING)
def test_a_value_rebound_between_the_passes_is_found(gradient, method, change):
    net = SmallNet()
    func = Scaled(net)
    pair = (func, lambda t, y: -20.0 * y) if METHODS[method].additive else func
    options = {} if METHODS[method].adaptive else {"step_size": 0.2}
    y0 = start().requires_grad_()
    ys = solve(
        pair, y0, T, method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient,
        params=tuple(net.parameters()),
    ).ys  # fmt: skip
    func.box[0] += change
    with pytest.raises(FunctionChanged, match="has changed in between"):
        ys.sum().backward()
    assert y0.grad is None and all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(("gradient", "part"), taking_turns([0, 1], RECOMPUTING))
def test_a_change_of_either_part_of_a_pair_is_found(part, gradient):
    funcs = Scaled(SmallNet()), Scaled(StiffLinear())
    ys = solve(
        funcs, start().requires_grad_(), T, method="kencarp4", rtol=1e-3, atol=1e-3, gradient=gradient, params=()
    ).ys
    funcs[part].box[0] += 1e-5
    with pytest.raises(FunctionChanged, match="has changed in between"):
        ys.sum().backward()


@pytest.mark.parametrize("method", ["kvaerno5", "trbdf2"])
@pytest.mark.parametrize("gradient", RECOMPUTING)
def test_a_changed_rate_of_a_stiff_problem_is_found(gradient, method):
    func = Scaled(VanDerPol(100.0))
    y0 = VanDerPol.START.clone().requires_grad_()
    ys = solve(func, y0, T, method=method, rtol=1e-4, atol=1e-4, gradient=gradient, params=tuple(func.net.parameters()))
    func.box[0] += 1e-6
    with pytest.raises(FunctionChanged, match="has changed in between"):
        ys.ys.sum().backward()


class Decays(nn.Module):
    """Linear decay, in a basis of its own, with rates from 1 to 1e8."""

    START = torch.tensor([1.0, -0.5, 0.25, 2.0, -1.0], dtype=torch.float64)

    def __init__(self):
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double())
        self.A = nn.Parameter(-basis @ torch.diag(10.0 ** torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0]).double()) @ basis.T)

    def forward(self, t, y):
        return self.A @ y


STIFF = {
    "robertson": (Robertson, 40.0, 1e-8),
    "van der pol": (lambda: VanDerPol(100.0), 100.0, 1e-4),
    "decays": (Decays, 1.0, 1e-6),
    "hires": (Hires, 40.0, 1e-6),
}
ADAPTIVE = ["sdirk2", "trbdf2", "kvaerno3", "kvaerno5"]


@pytest.mark.parametrize("name", STIFF)
@pytest.mark.parametrize(("gradient", "method"), taking_turns(ADAPTIVE * 3, EXACT))
def test_stiffness_is_no_change(method, gradient, name):
    """Rounding errors of the state, which f amplifies by 1e8, are neither a change of func nor noise."""
    make, end, atol = STIFF[name]
    func = make()
    y0 = func.START.clone().requires_grad_()
    t = torch.tensor([0.0, 0.3 * end, end], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", sa.NoiseWarning)
        solution = solve(func, y0, t, method=method, rtol=1e-4, atol=atol, gradient=gradient)
        solution.ys.square().sum().backward()
    assert y0.grad.isfinite().all() and y0.grad.any()


@pytest.mark.parametrize("name", STIFF)
@pytest.mark.parametrize(("gradient", "method"), taking_turns(["radauIIA3", "radauIIA5"] * 3, EXACT))
def test_stiffness_is_no_change_with_coupled_stages(method, gradient, name):
    make, end, _ = STIFF[name]
    func, end = make(), 0.6 * end  # before van der Pol's first jump, over which such steps find no stages
    y0 = func.START.clone().requires_grad_()
    t = torch.tensor([0.0, 0.3 * end, end], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", sa.NoiseWarning)
        options = {"step_size": end / 60.0}
        solution = solve(func, y0, t, method=method, gradient=gradient, options=options)
        solution.ys.square().sum().backward()
    assert y0.grad.isfinite().all() and y0.grad.any()


def test_a_model_of_a_pair_learns():
    pair = SmallNet(), StiffLinear()
    model = sa.NeuralODE(pair, method="kencarp4", rtol=1e-3, atol=1e-3)
    assert {id(p) for p in model.parameters()} == {id(p) for part in pair for p in part.parameters()}
    assert len(model.state_dict()) == len(list(model.parameters()))
    y0, goal = start(), torch.zeros(4, 3, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (model(y0, T)[-1] - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    again = sa.NeuralODE((SmallNet(seed=1), StiffLinear()), method="kencarp4", rtol=1e-3, atol=1e-3)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(y0, T), model(y0, T))
