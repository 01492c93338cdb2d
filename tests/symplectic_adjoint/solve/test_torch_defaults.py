"""torch's default device and default dtype, which are the user's: no tensor of the library's own depends on them."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.replacement import functions
from tests.solve_cases import EXPLICIT_CASES, FIXED, IMPLICIT_CASES, TOLERANCES, Neighbours, T, solved, start


def interface(solve):
    return lambda func, y0, t, **keywords: (solve(func, y0, t, **TOLERANCES, **keywords), ())


def event_of_torchdiffeq(func, y0, t):
    time, ys = sa.odeint_event(func, y0, 0.0, event_fn=lambda t, y: y.flatten()[0] + t - 1.0, **TOLERANCES)
    return ys * time, (time.detach(),)


def stopped(func, y0, t, **keywords):
    solution = sa.solve(func, y0, t, options={"stop": lambda t, y: t > 0.5}, **TOLERANCES, **keywords)
    return torch.cat([solution.ys[:3], solution.stopped_y[None]]), ()


def given(func, y0, t, **options):
    return solved(func, y0, t, options=options)


def given_fixed(func, y0, t, **options):
    return solved(func, y0, t, method="rk4", options={**FIXED, **options})


def given_implicit(func, y0, t, **options):
    return solved(func, y0, t, method="kvaerno3", options=options)


def stepped_by(func, y0, t, make_grid):
    return solved(func, y0, t, method="rk4", options={"grid_constructor": make_grid})


def with_callbacks(func, y0, t):
    seen = []
    func.callback_step = func.callback_accept_step = lambda t, y, h: seen.append(y * t + h)
    ys, others = solved(func, y0, t)
    return ys, (*others, torch.stack(seen))


def repeated(func, y0, t):
    return solved(func, y0, t[[0, 0, 1, 1, 2]])


def in_half_precision(func, y0, t):
    half = Neighbours().half()
    used = (*half.parameters(), *func.parameters())
    ys, others = solved(lambda t, y: half(t, y) + func(t, y).half(), y0.half(), t, params=used)
    return ys.float(), others


def complex_state(func, y0, t, **keywords):
    ys, others = solved(lambda t, y: func(t, y.real) + 1j * y, y0 + 1j, t, params=func, **keywords)
    return ys.real, others


def layer(func, y0, t):
    return sa.NeuralODE(func, **TOLERANCES)(y0, t), ()


def replaced(func, y0, t):
    solution = functions.odeint_dense(func, y0, 0.0, 1.0, **TOLERANCES)
    return functions.odeint_adjoint(func, y0, t, **TOLERANCES), (solution(0.5).detach(),)


def checked(func, y0, t):
    check = sa.check_gradient(func, y0, t, rtol=1e-5, atol=1e-5)
    sa.compare_gradients(func, y0, t, **TOLERANCES)
    sa.advise(func, y0, t, **TOLERANCES)
    assert check.ok
    return y0 * 1.0, ()


def on_host(*numbers):
    return torch.tensor(numbers, dtype=torch.float32, device="cpu")


def rms(x):
    return x.square().mean().sqrt().item()


WAYS = {
    "adjoint-interface": interface(sa.odeint_adjoint),
    "paper": interface(sa.odeint_checkpoint),
    "event-interface": event_of_torchdiffeq,
    "stop": stopped,
    "captured-stop": lambda *given: stopped(*given, capture=True),
    "perturb": lambda f, y, t: given_fixed(f, y, t, perturb=True),
    "cubic": lambda f, y, t: given_fixed(f, y, t, interp="cubic"),
    "norm": lambda f, y, t: given(f, y, t, norm=rms),
    "step_t": lambda f, y, t: given(f, y, t, step_t=on_host(0.1)),
    "grid_points": lambda f, y, t: given(f, y, t, grid_points=on_host(0.0, 0.5, 1.0)),
    "grid_constructor": lambda f, y, t: stepped_by(f, y, t, lambda f, y, t: t.detach()),
    "first_step": lambda f, y, t: given(f, y, t, first_step=0.1, controller="PI"),
    "tolerances": lambda f, y, t: solved(f, y, t, rtol=on_host(1e-3, 1e-4, 1e-3), atol=1e-5),
    "norm-of-second-solve": lambda f, y, t: (
        sa.odeint_adjoint(f, y, t, gradient=sa.Continuous(options={"norm": rms})),
        (),
    ),
    "of-a-part": lambda f, y, t: (sa.odeint(lambda t, y: (f(t, y[0]),), (y,), t, params=f, rtol=(1e-5,))[0], ()),
    "callbacks": with_callbacks,
    "repeated": repeated,
    "half": in_half_precision,
    "complex": complex_state,
    "captured-complex": lambda *given: complex_state(*given, capture=True),
    "layer": layer,
    "replaced": replaced,
    "diagnostics": checked,
    "preconditioner": lambda f, y, t: given_implicit(f, y, t, linear="gmres", preconditioner=lambda t, y, hg, r: r),
}


CASES = {**EXPLICIT_CASES, **IMPLICIT_CASES, **{name: (solve, {}) for name, solve in WAYS.items()}}


DEFAULTS = {
    "meta": (torch.set_default_device, "meta", None),
    "float64": (torch.set_default_dtype, torch.float64, torch.float32),
    "float16": (torch.set_default_dtype, torch.float16, torch.float32),
}
"""How torch's default is set, to what, and what it was before."""


def results(case, set_default=None, value=None, before=None):
    """Return all results of a solve, its gradients included, with torch's default set for as long as it takes."""
    solve, keywords = case
    func, y0, t = Neighbours(), start().requires_grad_(), T.clone().requires_grad_()
    try:
        if set_default is not None:
            set_default(value)
        ys, others = solve(func, y0, t, **keywords)
        bars = torch.autograd.grad(ys.square().sum(), (y0, t, *func.parameters()), allow_unused=True)
    finally:
        if set_default is not None:
            set_default(before)
    return [ys.detach(), *others, *bars]


@pytest.fixture(scope="module")
def expected():
    """Return the results without a default, which those with one are compared with."""
    return {}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("default", DEFAULTS.values(), ids=DEFAULTS)
def test_torchs_defaults_do_not_matter(default, name, expected):
    if name not in expected:
        expected[name] = results(CASES[name])
    for a, b in zip(results(CASES[name], *default), expected[name], strict=True):
        assert a is b is None or (a.dtype == b.dtype and torch.equal(a, b))
