"""Defects 16 to 18: error norms, bad arguments and limits."""

import math
import subprocess
import sys

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.symplectic_adjoint.reference_defects.shared import (
    LOOSE,
    T,
    every_gradient,
    vector,
)


@every_gradient
@pytest.mark.parametrize("norm", [None, lambda y: max(part.abs().max() for part in y)])
def test_defect_16_errors_count_with_either_sign(norm, gradient):
    """The mirrored problem has errors of the other sign and must take the same steps."""

    def func(t, y):
        return torch.sin(3.0 * t) * y[0], y[0] * torch.cos(y[1]) - y[1] * y[1].abs()

    def steps(sign):
        y0 = tuple((sign * part).requires_grad_() for part in (vector(0.9, 0.1), vector(0.5, 1.5)))
        options = {} if norm is None else {"norm": norm}
        return sa.solve(func, y0, 4 * T, options=options, gradient=gradient, **LOOSE).grid.h

    assert torch.equal(steps(1.0), steps(-1.0)) and len(steps(1.0)) > 5


@every_gradient
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rtol": -1e-3}, ValueError, "rtol"),
        ({"atol": -1e-3}, ValueError, "atol"),
        ({"func": lambda t, y: y[:1]}, ValueError, "shape"),
        ({"y0": torch.full((4, 3), math.nan)}, sa.NonFiniteError, "y0"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, ValueError, "t must be increasing or decreasing throughout"),
    ],
)
def test_defect_17_nonsense_is_refused_by_name(change, error, message, gradient):
    arguments = {"func": lambda t, y: -y, "y0": start(), "t": T, "gradient": gradient, **change}
    with pytest.raises(error, match=message):
        sa.odeint(**arguments)


OPTIMISED = """
import torch, symplectic_adjoint as sa
T = torch.tensor([0.0, 1.0])
nonsense = [
    lambda: sa.odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0, 0.5])),
    lambda: sa.odeint(lambda t, y: -y, torch.ones(2), T, rtol=-1.0),
    lambda: sa.odeint(lambda t, y: y[:1], torch.ones(2), T),
    lambda: sa.odeint(lambda t, y: -y, torch.tensor([1, 2]), T),
]
for call in nonsense:
    try:
        call()
    except ValueError:
        continue
    raise SystemExit("accepted")
assert False, "this must not run"
print("refused")
"""


def test_defect_18_input_is_checked_under_python_O_too():
    """`python -O` strips assert statements."""
    finished = subprocess.run([sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout.strip()) == (0, "refused"), finished.stderr


@every_gradient
def test_defect_18_max_num_steps_limits_the_whole_solve(gradient):
    net, y0, t = SmallNet(), start().requires_grad_(), torch.linspace(0.0, 2.0, 11, dtype=torch.float64)
    for options in ({}, {"outputs": "land"}):
        needed = sa.solve(net, y0, t, options=options, gradient=gradient, **LOOSE).stats
        tries = needed.accepted + needed.rejected
        sa.odeint(net, y0, t, options={**options, "max_num_steps": tries}, gradient=gradient, **LOOSE)
        with pytest.raises(sa.TooManySteps):
            sa.odeint(net, y0, t, options={**options, "max_num_steps": tries - 1}, gradient=gradient, **LOOSE)
