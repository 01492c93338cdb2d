"""On a card every exact gradient is that of autograd over the recorded grid."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gpu.problems import (
    DEVICE,
    EXACT,
    FIXED,
    MANY,
    ON_CARD,
    REVERSED,
    ROUNDING,
    Mlp,
    T,
    keywords_of,
    loss_of,
    oracle,
    start,
    worst,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
ADAPTIVE = {"rtol": 1e-4, "atol": 1e-4}


def error_of(gradient, method, dtype, t, *, exact=None, **keywords):
    """Return the error of a gradient, and the oracle's gradient, to be used again for the same grid."""
    net, y0 = Mlp(dtype=dtype), start(dtype=dtype)
    solution = sa.solve(net, y0, t, **keywords_of(gradient, method, **keywords))
    bars = torch.autograd.grad(loss_of(solution.ys), [y0, *net.parameters()])
    exact = oracle(net, y0, solution, gradient, method) if exact is None else exact
    return worst(bars, exact), exact


@DTYPES
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_gradients_are_exact(table, method, dtype):
    """With fixed steps and, for embedded methods, adaptive ones; with t on the host, and once on the card."""
    for grid, keywords in {"fixed": {"options": FIXED}, "adaptive": ADAPTIVE}.items():
        if grid == "adaptive" and not sa.METHODS[method].adaptive:
            continue
        exact = None
        for gradient in EXACT:
            for t in (T, T.to(DEVICE)) if gradient == "symplectic" else (T,):
                error, exact = error_of(gradient, method, dtype, t, exact=exact, **keywords)
                table.at_most("exactness", f"{grid} steps, {dtype}".replace("torch.", ""), error, ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", ["rk4", "dopri5", "dop853"])
def test_many_outputs_inside_steps(table, method, gradient, dtype):
    """They are formed together, and so are the sums of their cotangents, with weights that are moved to the card."""
    net, y0 = Mlp(dtype=dtype), start(dtype=dtype)
    for captured in ({}, {"capture": True}) if sa.GRADIENTS[gradient].captures and ON_CARD else ({},):
        solution = sa.solve(net, y0, MANY, **keywords_of(gradient, method, options=FIXED, **captured))
        bars = torch.autograd.grad(loss_of(solution.ys), [y0, *net.parameters()])
        error = worst(bars, oracle(net, y0, solution, gradient, method, MANY))
        what = f"many outputs{', captured' if captured else ''}, {dtype}".replace("torch.", "")
        table.at_most("exactness", what, error, ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize("gradient", REVERSED)
def test_reversed_gradients_are_exact(table, gradient, dtype):
    """As far as reversing restores the states: rounding errors grow some ten times."""
    error, _ = error_of(gradient, "rk4", dtype, T, options=FIXED)
    table.at_most("exactness", f"reversed steps, {dtype}".replace("torch.", ""), error, 10 * ROUNDING[dtype])


@pytest.mark.parametrize("place", ["host", "card"])
@pytest.mark.parametrize("gradient", EXACT)
def test_gradients_of_times_are_exact(table, gradient, place):
    net, y0 = Mlp(dtype=torch.float64), start(dtype=torch.float64)
    bars = []
    for name in (gradient, "backprop"):
        t = T.to(DEVICE if place == "card" else "cpu").clone().requires_grad_()
        ys = sa.odeint(net, y0, t, **keywords_of(name, options=FIXED))
        bars += torch.autograd.grad(loss_of(ys), [t])
        assert bars[-1].device == t.device
    table.at_most("exactness", "dL/dt, float64", worst(bars[:1], bars[1:]), ROUNDING[torch.float64])


@pytest.mark.parametrize("gradient", EXACT)
def test_second_derivatives_are_exact(table, gradient):
    net, y0 = Mlp(dtype=torch.float64), start(dtype=torch.float64)

    def second(name):
        (bar,) = torch.autograd.grad(
            loss_of(sa.odeint(net, y0, T, **keywords_of(name, options=FIXED))), y0, create_graph=True
        )
        return torch.autograd.grad(bar.square().sum(), [y0, *net.parameters()])

    table.at_most("exactness", "second derivatives", worst(second(gradient), second("backprop")), 1e-11)


def test_states_that_are_not_finite_are_named():
    y0 = start().detach()
    y0[3, 2] = float("nan")
    for keywords in ({"options": FIXED}, {}):
        with pytest.raises(sa.NonFiniteError, match=r"y0 is not finite: component \(3, 2\) is nan"):
            sa.odeint(Mlp(), y0, T, method="dopri5", **keywords)
