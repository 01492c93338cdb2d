"""torch.utils.checkpoint around a solve: the solve itself is run again in the backward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of

T = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)


class Block(nn.Module):
    """A layer, a solve, and a layer, with dropout outside the solve."""

    def __init__(self, odeint, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.odeint = odeint
        self.before, self.net, self.after = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.dropout = nn.Dropout(0.2)

    def field(self, t, y):
        return torch.tanh(self.net(y))

    def forward(self, x):
        return self.after(self.dropout(self.odeint(self.field, self.before(x), T)[-1]))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_gradient_is_that_without_a_checkpoint(solvers, use_reentrant):
    def train(odeint, checkpointed=True):
        blocks = nn.ModuleList([Block(odeint, seed) for seed in (0, 1)])
        torch.manual_seed(2)
        x = torch.randn(4, 3, requires_grad=True)
        y = x
        for block in blocks:
            y = checkpoint(block, y, use_reentrant=use_reentrant) if checkpointed else block(y)
        y.square().sum().backward()
        return gradients_of(blocks, x=x)

    solvers.check(train)
    plain, checkpointed = train(solvers.ours, checkpointed=False), train(solvers.ours)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_a_checkpoint_inside_the_field(solvers):
    def train(odeint):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))
        field = lambda t, y: checkpoint(net, y, use_reentrant=False)  # noqa: E731
        y0 = torch.randn(4, 3, requires_grad=True)
        odeint(field, y0, T)[-1].square().sum().backward()
        return gradients_of(net, y0=y0)

    solvers.check(train)


class Counted(Block):
    """A block that counts the calls of its field."""

    calls = 0

    def field(self, t, y):
        self.calls += 1
        return super().field(t, y)


EXACT = ["symplectic", "stages", "aca", "auto", "revolve", sa.Auto(30_000), sa.Symplectic(graphs=2)]
FIXED = ["rk4", "radauIIA3"]
IMPLICIT = [("symplectic", "kvaerno5"), ("auto", "kvaerno5"), ("symplectic", "radauIIA3"), ("stages", "sdirk2")]
PAIRS = [*((gradient, method) for gradient in EXACT for method in ("dopri5", "rk4")), *IMPLICIT]


def grads_of_a_block(gradient, method, region):
    more = {"options": {"step_size": 0.25}} if method in FIXED else {"rtol": 1e-3, "atol": 1e-3}

    def odeint(func, y0, t):
        return sa.odeint(func, y0, t[[0, -1]], gradient=gradient, method=method, **more)

    block = Counted(odeint)
    torch.manual_seed(2)
    x = torch.randn(4, 3, requires_grad=True)
    region(block, x).square().sum().backward()
    return gradients_of(block, x=x), block.calls


def around(**options):
    return lambda block, x: checkpoint(block, x, **options)


def saved_on_cpu(block, x):
    with torch.autograd.graph.save_on_cpu():
        return block(x)


REGIONS = {
    "checkpoint": around(use_reentrant=False),
    "reentrant checkpoint": around(use_reentrant=True),
    "save_on_cpu": saved_on_cpu,
}


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
@pytest.mark.parametrize(("gradient", "method"), PAIRS, ids=str)
def test_every_gradient_within_hooks_on_saved_tensors(gradient, method, region):
    plain, _ = grads_of_a_block(gradient, method, lambda block, x: block(x))
    found, _ = grads_of_a_block(gradient, method, region)
    assert all(torch.allclose(found[name], plain[name], rtol=1e-12, atol=1e-14) for name in plain)  # to rounding


@pytest.mark.parametrize(("gradient", "method"), IMPLICIT, ids=str)
def test_graphs_of_the_solver_itself_do_not_recompute_the_region(gradient, method):
    """Either kind of checkpoint runs the forward pass once more, and nothing else."""
    _, reentrant = grads_of_a_block(gradient, method, around(use_reentrant=True))
    _, other = grads_of_a_block(gradient, method, around(use_reentrant=False))
    assert other <= reentrant
