"""Reading numbers from times that require a gradient never triggers torch's warning of a lost one (an error here)."""

import math

import pytest
import torch

import symplectic_adjoint as sa
from tests.gradients import FORWARD, and_continuous
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import (
    EVENT,
    EVENT_BOUND,
    Falling,
    Swing,
    height,
    initial,
    times,
)


@pytest.fixture(autouse=True)
def _warnings_are_never_swallowed():
    """Torch gives some of its warnings once per process, to whichever test comes first."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.parametrize(
    ("gradient", "options"), and_continuous([{"jump_t": [0.4]}, {"step_t": [0.4]}, {"step_size": 0.3, "perturb": True}])
)
def test_a_solve_over_them_has_gradients_of_them(odeint, gradient, options):
    t = times(0.0, 0.6, 1.0, requires_grad=True)
    odeint(Swing(), initial(torch.float64), t, options=options, rtol=1e-3, atol=1e-3)[-1].sum().backward()
    assert t.grad[2] != 0


@pytest.mark.parametrize(("gradient", "method"), and_continuous(["dopri5", "dopri8", "rk38"]))
def test_the_time_of_an_event_has_the_gradient_of_the_start(odeint, gradient, method):
    t = times(0.0, 1.0, requires_grad=True)
    options = {} if sa.METHODS[method].adaptive else {"step_size": 0.1}
    y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
    odeint(Falling(), y0, t, event_fn=height, method=method, options=options, **EVENT)[0].backward()
    assert t.grad.tolist() == pytest.approx([1.0, 0.0], abs=EVENT_BOUND)


@pytest.mark.parametrize("gradient", FORWARD)
@pytest.mark.parametrize("options", [{}, {"step_size": 0.1}])
def test_an_error_is_still_the_one_that_happened(odeint, gradient, options):
    def turns_nan(t, y):
        return torch.where(t < 0.5, 1.0, math.nan) * y

    t = times(0.0, 1.0, requires_grad=True)
    with pytest.raises(sa.NonFiniteError):
        odeint(turns_nan, initial(torch.float64), t, options=options)
    with pytest.raises(sa.TooManySteps):
        odeint(Swing(), initial(torch.float64), t, options={**options, "max_num_steps": 2})
