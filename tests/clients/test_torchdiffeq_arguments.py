"""Arguments that installed packages and old scripts pass, which have no effect here or mean what they say."""

from functools import partial

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
# Two adaptive solves of other steps, each within some tolerances of 1e-8.
ADAPTIVE = 1e-6


class Field(nn.Module):
    """It counts its calls, as nearly every field of this kind does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.nfe = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)), 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y)


def trained(odeint, **keywords):
    field = Field()
    odeint(field, torch.ones(2, 3), T, **keywords)[-1].square().sum().backward()
    assert field.nfe > 0
    return gradients_of(field)


CALLS = {
    "torchcde's defaults": {"adjoint_options": {"norm": "seminorm"}, "adjoint_params": ()},
    "FFJORD's": {"adjoint_rtol": 1e-8, "adjoint_atol": 1e-8, "adjoint_method": "dopri5", "adjoint_options": {}},
    "a list of parameters": {"adjoint_params": "parameters"},
    "a limit of an Adams method": {"options": {"max_iters": 4}},
    "no growth of steps": {"options": {"ifactor": 1.0}},
    "a norm": {"options": {"norm": lambda y: y.abs().max()}},
    "a first step": {"options": {"first_step": 0.05}},
}


@pytest.mark.filterwarnings("ignore")  # each library says in its own words what has no effect
@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_odeint_adjoint(call):
    keywords = {"rtol": 1e-8, "atol": 1e-8, **CALLS[call]}
    if keywords.get("adjoint_params") == "parameters":
        keywords["adjoint_params"] = tuple(Field().parameters())  # of another module: ours are added to them
    got = trained(sa.odeint_adjoint, **keywords)
    expected = trained(torchdiffeq.odeint, rtol=1e-8, atol=1e-8)
    assert max(relative_error(got[name], expected[name]) for name in expected) < ADAPTIVE


def test_what_has_no_effect_is_said_once():
    with pytest.warns(sa.IgnoredArgumentWarning, match="no effect") as warned:
        for _ in range(3):
            trained(sa.odeint_adjoint, adjoint_rtol=1e-3, adjoint_atol=1e-3)
    assert len(warned) == 1


def test_params_is_a_module(solvers):
    """A plain function of a module, with the module itself where a tuple of tensors is meant."""

    def train(odeint):
        field = Field()
        keywords = {"params": field} if odeint.func is sa.odeint else {}
        odeint(lambda t, y: field(t, y), torch.ones(2, 3), T, **keywords)[-1].square().sum().backward()
        return gradients_of(field)

    solvers.check(train)


def test_rtol_beyond_float32():
    field, y0 = Field().float(), torch.ones(2, 3, dtype=torch.float32)
    with pytest.warns(sa.ResolutionWarning):
        ys = sa.odeint(field, y0, T, rtol=1e-9, atol=1e-9)
    ys[-1].sum().backward()
    assert field.net[0].weight.grad.isfinite().all()


def test_an_event_that_jumps():
    """A switch at a time: the event function is the sign of t - 1/3, with no slope anywhere."""

    def switch(t, y):
        return torch.zeros_like(t) if t > 1.0 / 3.0 else torch.ones_like(t)

    # A jump in the time is found to rounding, and y there to the tolerance.
    t, ys = sa.odeint(lambda t, y: -y, torch.ones(2), T[[0, -1]], event_fn=switch, rtol=1e-9, atol=1e-9)
    assert abs(t.item() - 1.0 / 3.0) < 1e-12
    assert torch.allclose(ys[-1], torch.exp(-t).expand(2), rtol=1e-7)


def test_epochs_in_nanoseconds_end():
    """At 1.7e18 the next time in float64 is 256 ns away: the value or an error, and no endless loop."""
    calls = []

    def f(t, y):
        calls.append(1)
        return -1e-9 * y

    start = 1.7e18
    t = torch.tensor([start, start + 512.0, start + 1024.0])
    try:
        ys = sa.odeint(f, torch.ones(2), t)
        assert torch.allclose(ys[-1], torch.ones(2), rtol=1e-5)
    except sa.SolverError as error:
        assert "spacing" in str(error) or "float64" in str(error)
    assert len(calls) < 1000


def test_a_module_made_of_the_public_functions():
    """from torchdiffeq import odeint_adjoint as odeint, odeint_event, odeint_dense: all names are here."""
    field = Field()
    interface = partial(sa.odeint_adjoint, rtol=1e-8, atol=1e-8)
    t, ys = sa.odeint_event(
        field, torch.ones(3), torch.tensor(0.0), event_fn=lambda t, y: t - 0.4, odeint_interface=interface
    )
    assert abs(t.item() - 0.4) < 1e-9
    dense = sa.odeint_dense(field, torch.ones(3), torch.tensor(0.0), torch.tensor(1.0), rtol=1e-8, atol=1e-8)
    assert torch.allclose(dense(t), ys[-1], rtol=1e-6)
