"""The functions that replace_torchdiffeq installs mean torchdiffeq's: the same numbers from the same arguments."""

import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.replacement import functions as ours
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import EVENT, EVENT_BOUND, Falling, Swing, height, times

METHODS = ["dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun", "euler", "midpoint", "heun2", "heun3", "rk4"]
FIXED = METHODS[5:]
T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)


def y0_of():
    return torch.linspace(-1.0, 1.3, 3, dtype=torch.float64)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("options", [None, {"step_size": 0.15}, {"step_size": 0.15, "interp": "cubic"}])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_give_torchdiffeqs_numbers_to_rounding(method, options, backwards):
    t = T.flip(0) if backwards else T
    expected = torchdiffeq.odeint(Swing(), y0_of(), t, method=method, options=options)
    found = ours.odeint(Swing(), y0_of(), t, method=method, options=options)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)  # rounding of 7 steps


# Adaptive steps differ within the tolerance: a step here ends at t[-1], torchdiffeq's goes beyond it.
@pytest.mark.parametrize("method", METHODS[:3])
def test_adaptive_solves_agree_within_tolerance(method):
    expected = torchdiffeq.odeint(Swing(), y0_of(), T, method=method, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(ours.odeint(Swing(), y0_of(), T, method=method), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_defaults_are_torchdiffeqs(name):
    found = getattr(ours, name)(Swing(), y0_of(), T)
    torch.testing.assert_close(found, sa.odeint(Swing(), y0_of(), T, rtol=1e-7, atol=1e-9, method="dopri5"))


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_the_gradient_is_that_of_the_steps_taken(name, method):
    net, y0 = nn.Linear(3, 3).double(), y0_of().requires_grad_()
    field = nn.Sequential(net, nn.Tanh())

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = field

        def forward(self, t, y):
            return self.inner(y) * torch.cos(t)

    how = {"method": method, "options": {"step_size": 0.1} if method == "rk4" else {"first_step": 0.1}}
    func = Field()
    inputs = (y0, *func.parameters())
    found = torch.autograd.grad(getattr(ours, name)(func, y0, T, **how).square().sum(), inputs)
    expected = torch.autograd.grad(ours.odeint(func, y0, T, gradient="backprop", **how).square().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding of some tens of steps
    if method == "rk4":  # on a fixed grid, torchdiffeq's odeint has this gradient too
        theirs = torch.autograd.grad(torchdiffeq.odeint(func, y0, T, **how).square().sum(), inputs)
        for a, b in zip(found, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [{"step_size": 1.0}, {"grid_constructor": lambda f, y, t: t}, {"interp": "cubic"}, {"perturb": True},
         {"grid_points": T}, {"eps": 1e-3}, {"typo": 1}, {"max_iters": 4}],
    )  # fmt: skip
    def test_what_an_adaptive_method_of_torchdiffeq_ignores_is_ignored_with_a_warning(self, options):
        stiff = partial(lambda t, y: -50.0 * y)
        y0, t = torch.ones(1, dtype=torch.float64), times(0.0, 3.0)
        with pytest.warns(sa.IgnoredArgumentWarning, match="has no effect with method='dopri5'"):
            found = ours.odeint(stiff, y0, t, method="dopri5", options=options)
        torch.testing.assert_close(found, ours.odeint(stiff, y0, t, method="dopri5"), rtol=0, atol=0)

    @pytest.mark.parametrize(
        "options", [{"max_num_steps": 1}, {"jump_t": times(0.5)}, {"first_step": 1.0}, {"grid_points": T}, {"typo": 1}]
    )
    def test_what_a_fixed_method_of_torchdiffeq_ignores_is_ignored_with_a_warning(self, options):
        with pytest.warns(sa.IgnoredArgumentWarning, match="has no effect with method='rk38'"):
            found = ours.odeint(Swing(), y0_of(), T, method="rk4", options={"step_size": 0.1, **options})
        plain = ours.odeint(Swing(), y0_of(), T, method="rk4", options={"step_size": 0.1})
        torch.testing.assert_close(found, plain, rtol=0, atol=0)

    def test_those_of_torchdiffeq_that_apply_are_silent(self):
        options = {
            "norm": lambda y: y.abs().max(), "first_step": torch.tensor(0.1), "min_step": 0,
            "max_step": np.float32(0.5), "safety": 0.8, "ifactor": 5, "dfactor": 0.3,
            "step_t": times(0.4), "jump_t": None, "max_num_steps": 1e6,
            "dtype": torch.float64,
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours.odeint(Swing(), y0_of(), T, method="dopri5", options=options)
            fixed = {"step_size": None, "grid_constructor": None, "interp": "linear", "perturb": False}
            ours.odeint(Swing(), y0_of(), T, method="rk4", options={**fixed, "norm": lambda y: y.abs().max()})

    def test_a_dtype_of_time_is_accepted(self):
        with pytest.warns(sa.IgnoredArgumentWarning, match="'dtype'.*float64"):
            found = ours.odeint(Swing(), y0_of(), T, method="dopri5", options={"dtype": torch.float32})
        torch.testing.assert_close(found, ours.odeint(Swing(), y0_of(), T), rtol=0, atol=0)

    def test_max_num_steps_counts_from_output_to_output(self):
        steps = sa.solve(Swing(), y0_of(), T, method="dopri5", rtol=1e-9).stats.accepted
        assert steps > 8
        ours.odeint(Swing(), y0_of(), T, rtol=1e-9, options={"max_num_steps": steps // 2})
        with pytest.raises(sa.TooManySteps, match="max_num_steps=6"):
            ours.odeint(Swing(), y0_of(), T, rtol=1e-9, options={"max_num_steps": 2})


IMPLICIT = ["implicit_euler", "implicit_midpoint", "trapezoid", "sdirk2", "trbdf2"]
"""Those of torchdiffeq's repository, which all have fixed steps there; release 0.2.5 has none of them."""


class TestImplicitMethods:
    @pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("method", IMPLICIT)
    def test_without_options_they_step_from_time_to_time(self, method, backwards, name):
        t = T.flip(0) if backwards else T
        expected = sa.odeint(Swing(), y0_of(), t, method=method, options={"grid_points": t})
        for options in (None, {}, {"step_size": None}):
            found = getattr(ours, name)(Swing(), y0_of(), t, method=method, options=options, rtol=1e-2, atol=1e-2)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("method", IMPLICIT)
    def test_step_size_and_grid_constructor_set_their_steps_without_a_warning(self, method):
        grid = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
        expected = sa.odeint(Swing(), y0_of(), T, method=method, options={"grid_points": grid, "interp": "linear"})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for options in ({"step_size": 0.25}, {"grid_constructor": lambda f, y, t: grid}):
                found = ours.odeint(Swing(), y0_of(), T, method=method, options=options)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("method", IMPLICIT)
    def test_interp_is_cubic_or_refused_by_name(self, method):
        def solved(interp):
            options = {"step_size": 0.25, "interp": interp}
            return ours.odeint(Swing(), y0_of(), T, method=method, options=options)

        if method in ("implicit_euler", "implicit_midpoint", "sdirk2"):
            with pytest.raises(sa.UnsupportedCombination, match="lacks f at a step's start"):
                solved("cubic")
        else:
            assert not torch.equal(solved("cubic"), solved("linear"))

    @pytest.mark.parametrize("method", ["sdirk2", "trbdf2"])
    def test_the_gradient_is_that_of_these_steps(self, method):
        y0, t = y0_of().requires_grad_(), T.clone().requires_grad_()
        found = torch.autograd.grad(ours.odeint(Swing(), y0, t, method=method).square().sum(), (y0, t))
        options = {"grid_points": T}
        expected = sa.odeint(Swing(), y0, t, method=method, options=options, gradient="backprop").square().sum()
        for a, b in zip(found, torch.autograd.grad(expected, (y0, t)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding of three steps

    @pytest.mark.parametrize("options", [{"max_num_steps": 1}, {"first_step": 1.0}, {"jump_t": times(0.5)}])
    @pytest.mark.parametrize("method", ["sdirk2", "trbdf2"])
    def test_options_of_adaptive_steps_are_ignored_with_a_warning(self, method, options):
        with pytest.warns(sa.IgnoredArgumentWarning, match=f"has no effect with method='{method}': torchdiffeq"):
            found = ours.odeint(Swing(), y0_of(), T, method=method, options=options)
        torch.testing.assert_close(found, ours.odeint(Swing(), y0_of(), T, method=method), rtol=0, atol=0)

    def test_the_most_iterations_are_this_librarys(self):
        with pytest.warns(sa.IgnoredArgumentWarning, match="'max_iters'.*'sdirk2': stages are solved to rounding"):
            ours.odeint(Swing(), y0_of(), T, method="sdirk2", options={"max_iters": 3})

    def test_an_event_needs_a_step_size_as_with_every_fixed_method(self):
        y0 = torch.tensor([5.0, 0.0], dtype=torch.float64)
        how = {"event_fn": height, "method": "trbdf2"}
        with pytest.raises(sa.UnsupportedCombination, match="give step_size in options"):
            ours.odeint_event(Falling(), y0, times(0.0)[0], **how)
        event_t, _ = ours.odeint_event(Falling(), y0, times(0.0)[0], options={"step_size": 0.01}, **how)
        expected, _ = sa.odeint_event(Falling(), y0, times(0.0)[0], **EVENT, event_fn=height)
        assert abs(event_t - expected) < 1e-3  # linear between the ends of a step of 0.01

    @pytest.mark.parametrize("method", ["implicit_euler", "sdirk2"])
    def test_dense_output_is_that_of_one_step_or_of_the_grid(self, method):
        found = ours.odeint_dense(Swing(), y0_of(), 0.0, 1.0, method=method)
        assert len(found.grid.t) == 1
        found = ours.odeint_dense(Swing(), y0_of(), 0.0, 1.0, method=method, options={"step_size": 0.25})
        assert len(found.grid.t) == 4

    @pytest.mark.parametrize(("options", "calls"), [(None, 3), ({"step_size": 0.125}, 9)])
    def test_a_second_solve_has_their_fixed_steps(self, options, calls):
        seen = []

        class Watched(Swing):
            def callback_accept_step_adjoint(self, t, y, h):
                seen.append(float(h))

        t = torch.tensor([0.0, 0.25, 0.5, 1.125], dtype=torch.float64)
        with sa.set_default(gradient="continuous"):
            y0 = y0_of().requires_grad_()
            ys = ours.odeint_adjoint(Watched(), y0, t, adjoint_method="sdirk2", adjoint_options=options)
            torch.autograd.grad(ys.sum(), y0)
        assert len(seen) == calls

    def test_an_alias_of_a_method_is_not_left_to_torchdiffeq(self, monkeypatch):
        monkeypatch.setitem(sys.modules["torchdiffeq._impl.odeint"].SOLVERS, "trapezoid", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = ours.odeint(Swing(), y0_of(), T, method="trapezoid")
        torch.testing.assert_close(found, sa.odeint(Swing(), y0_of(), T, method="crank_nicolson"), rtol=0, atol=0)


class TestMethodsOfTorchdiffeqAlone:
    @pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams", "scipy_solver"])
    @pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
    def test_are_left_to_it_with_a_warning(self, name, method):
        how = {"method": method, "options": None if method == "scipy_solver" else {"step_size": 0.1}}
        expected = getattr(torchdiffeq, name)(Swing(), y0_of(), T, **how)
        with pytest.warns(sa.NotReplacedWarning, match=f"{method!r} is not available here: torchdiffeq.{name} is"):
            found = getattr(ours, name)(Swing(), y0_of(), T, **how)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)

    def test_are_refused_by_name_with_a_keyword_of_this_library(self):
        with pytest.raises(ValueError, match="Adams methods are not available"):
            ours.odeint(Swing(), y0_of(), T, method="explicit_adams", gradient="aca")

    def test_an_event_goes_to_it_whole(self):
        how = {"event_fn": height, "method": "fixed_adams", "options": {"step_size": 0.01}, "atol": 1e-9}
        start = torch.tensor([5.0, 0.0], dtype=torch.float64, requires_grad=True)
        expected, _ = torchdiffeq.odeint_event(Falling(), start, times(0.0)[0], **how)
        with pytest.warns(sa.NotReplacedWarning, match="torchdiffeq.odeint_event is"):
            found, _ = ours.odeint_event(Falling(), start, times(0.0)[0], **how)
        a, b = (torch.autograd.grad(x, start)[0] for x in (found, expected))
        torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_an_unknown_name_is_an_error(self):
        with pytest.raises(ValueError, match="unknown method 'rk5'"):
            ours.odeint(Swing(), y0_of(), T, method="rk5")


def wrapped(func, y0, t, **keywords):
    """Call odeint as a user's own function does."""
    return ours.odeint(func, y0, t, **keywords)


class TestEvents:
    @pytest.mark.parametrize(
        "interface",
        [
            ours.odeint,
            ours.odeint_adjoint,
            partial(ours.odeint, method="dopri8"),
            wrapped,
            sa.odeint,
            torchdiffeq.odeint,
        ],
        ids=["odeint", "odeint_adjoint", "partial", "wrapper", "direct", "theirs"],
    )
    @pytest.mark.filterwarnings("ignore::symplectic_adjoint.NotReplacedWarning")  # for theirs
    def test_any_interface_gives_time_and_gradient(self, interface):
        start = torch.tensor([5.0, 0.0], dtype=torch.float64, requires_grad=True)
        found = ours.odeint_event(Falling(), start, times(0.0)[0], event_fn=height, odeint_interface=interface, **EVENT)
        expected = torchdiffeq.odeint_event(Falling(), start, times(0.0)[0], event_fn=height, **EVENT)
        assert found[1].shape == expected[1].shape
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=EVENT_BOUND)
        a, b = (torch.autograd.grad(event_t, start)[0] for event_t, _ in (found, expected))
        torch.testing.assert_close(a, b, rtol=0, atol=EVENT_BOUND)

    def test_an_interface_that_loses_the_gradient_is_refused(self):
        def loses(*arguments, **keywords):
            event_t, ys = ours.odeint(*arguments, **keywords)
            return event_t.detach(), ys

        start = torch.tensor([5.0, 0.0], dtype=torch.float64, requires_grad=True)
        with pytest.raises(ValueError, match="loses the gradient of the event time"):
            ours.odeint_event(Falling(), start, times(0.0)[0], event_fn=height, odeint_interface=loses)

    def test_odeint_returns_time_and_states(self):
        start = torch.tensor([5.0, 0.0], dtype=torch.float64)
        event_t, ys = ours.odeint(Falling(), start, times(0.0, 1.0), event_fn=height, **EVENT)
        expected_t, expected = torchdiffeq.odeint(Falling(), start, times(0.0, 1.0), event_fn=height, **EVENT)
        torch.testing.assert_close(event_t, expected_t, rtol=0, atol=EVENT_BOUND)
        torch.testing.assert_close(ys, expected, rtol=0, atol=EVENT_BOUND)


def test_dense_output_is_a_function_of_time():
    dense = ours.odeint_dense(Swing(), y0_of(), times(0.0)[0], times(1.0)[0], method="dopri5")
    theirs = torchdiffeq.odeint_dense(Swing(), y0_of(), times(0.0)[0], times(1.0)[0], method="dopri5")
    for t in (0.1, 0.7):
        torch.testing.assert_close(dense(times(t)[0]), theirs(times(t)[0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gradient", ["mali", "reversible"])
def test_a_default_gradient_with_its_own_steps_works(gradient):
    with sa.set_default(gradient=gradient):
        ys = ours.odeint(Swing(), y0_of().requires_grad_(), T, **({} if gradient == "mali" else {"method": "rk4"}),
                         options={"step_size": 0.1} if gradient != "mali" else None)  # fmt: skip
    assert torch.autograd.grad(ys.sum(), ys.grad_fn.next_functions[0][0].variable)[0].isfinite().all()


def test_settings_of_a_second_solve_have_torchdiffeqs_names():
    net = nn.Linear(3, 3).double()
    field = type("Field", (nn.Module,), {"forward": lambda self, t, y: self.net(y)})()
    field.net = net
    y0 = y0_of().requires_grad_()
    how = {"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.05}, "rtol": 1e-9}
    with sa.set_default(gradient="continuous"):
        found = torch.autograd.grad(ours.odeint_adjoint(field, y0, T, **how).sum(), (y0, net.weight))
    theirs = torch.autograd.grad(torchdiffeq.odeint_adjoint(field, y0, T, **how).sum(), (y0, net.weight))
    for a, b in zip(found, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # both within the error of rk4 with steps of 0.05
