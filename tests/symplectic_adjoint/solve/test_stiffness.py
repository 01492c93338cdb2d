"""Explicit solves notice that their steps are limited by stability, at no f call and no wait."""

import math
import warnings

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import arguments, errors
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from symplectic_adjoint.solve import stiffness
from symplectic_adjoint.solve.stiffness import EVERY, NEAR, NOT_STIFF, STIFF, StiffnessTest
from symplectic_adjoint.steps.runge_kutta import Step
from tests.gradients import EXACT
from tests.pretend_card import PretendCard, on_card

EMBEDDED = [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive]
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}
T = torch.tensor([0.0, 0.5], dtype=torch.float64)
START = torch.tensor([2.0, 0.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def once_more():
    errors.forget_warnings()
    yield
    errors.forget_warnings()


def van_der_pol(mu):
    return lambda t, y: torch.stack([y[1], mu * (1.0 - y[0].square()) * y[1] - y[0]])


stiff = van_der_pol(1000.0)


def lorenz(t, y):
    return torch.stack([10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]])


def kepler(t, y):
    return torch.cat([y[2:], -y[:2] / y[:2].norm() ** 3])


def spiral(t, y):
    return y**3 @ y.new_tensor([[-0.1, 2.0], [-2.0, -0.1]])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)).double()

    def forward(self, t, y):
        return self.net(y)


class Flow(Net):
    """A continuous normalizing flow in two dimensions, with its exact trace."""

    def forward(self, t, state):
        x, _ = state
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            v = 3.0 * self.net(x)
            parts = [torch.autograd.grad(v[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2)]
        return v, -sum(parts)


def solved(func, y0=START, t=T, **keywords):
    """Return the solution, and the messages of the warnings of stiffness."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        solution = sa.solve(func, y0, t, **{**TOLERANCE, **keywords})
    assert all(x.category is sa.StiffnessWarning for x in given)
    return solution, [str(x.message) for x in given]


class TestStiffProblems:
    @pytest.mark.parametrize("method", EMBEDDED)
    def test_are_noticed_by_every_method(self, method):
        solution, given = solved(stiff, method=method)
        assert len(given) == 1
        assert 0.0 < solution.stats.stiff_at < 0.5
        assert f"limited by the stability of {method}" in given[0]
        assert 'method="kvaerno5" or "trbdf2"' in given[0]

    def test_are_warned_of_once_a_process_and_method(self):
        assert [len(solved(stiff, method=method)[1]) for method in ("dopri5", "dopri5", "bosh3")] == [1, 0, 1]

    def test_are_described_by_h_rho_and_its_bound(self):
        """rho is mu (y^2 - 1) = 3000 at the start."""
        solution, (message,) = solved(stiff, method="dopri5", rtol=1e-6, atol=1e-8)
        h_rho = float(message.partition("h rho = ")[2].partition(" ")[0])
        step = solution.grid.h[solution.grid.t <= solution.stats.stiff_at][-STIFF:].mean().item()
        assert h_rho == pytest.approx(3000.0 * step, rel=0.1)
        assert "against a bound of 3.31" in message

    @pytest.mark.parametrize("gradient", [*EXACT, "continuous"])
    def test_are_noticed_with_every_gradient(self, gradient):
        solution, given = solved(stiff, START.clone().requires_grad_(), gradient=gradient)
        assert len(given) == 1 and solution.stats.stiff_at > 0.0

    def test_are_noticed_backwards_in_time(self):
        _, given = solved(lambda t, y: -stiff(t, y), t=-T)
        assert len(given) == 1 and "At t = -0.0" in given[0]

    @pytest.mark.parametrize("controller", ["I", "PI"])
    def test_are_noticed_by_either_control(self, controller):
        assert len(solved(stiff, options={"controller": controller})[1]) == 1

    def test_are_noticed_in_states_of_any_kind(self):
        def spread(t, state):
            return {"a": stiff(t, state["a"]), "b": (-1000.0 * state["b"][0],)}

        slow = torch.ones(3, dtype=torch.complex64)
        assert len(solved(spread, {"a": START.float(), "b": (START,)}, method="bosh3")[1]) == 1
        assert len(solved(lambda t, y: (-1e3 + 1j) * y + torch.cos(t), slow, method="dopri5")[1]) == 1

    def test_are_noticed_with_a_norm_of_another_dtype(self):
        options = {"norm": lambda x: x.abs().max().double()}
        assert len(solved(stiff, START.float(), options=options)[1]) == 1

    def test_are_noticed_up_to_an_event(self):
        y0 = START.clone().requires_grad_()
        solution, given = solved(stiff, y0, method="dopri5", event_fn=lambda t, y: t - 0.4)
        assert len(given) == 1 and 0.0 < solution.stats.stiff_at < 0.4

    @pytest.mark.parametrize("leaf", [True, False])
    def test_are_noticed_up_to_a_stop(self, leaf):
        y0 = START.clone().requires_grad_(leaf)
        solution, given = solved(stiff, y0, options={"stop": lambda t, y: t > 0.4})
        assert len(given) == 1 and 0.0 < solution.stats.stiff_at < 0.4

    def test_are_noticed_between_jumps(self):
        t = torch.linspace(0.0, 0.5, 4, dtype=torch.float64)
        _, given = solved(stiff, t=t, options={"jump_t": [0.1, 0.2]})
        assert len(given) == 1

    def test_are_noticed_under_transforms(self):
        """vmap is refused with adaptive steps."""

        def end(y0):
            return sa.odeint(stiff, y0, 0.4 * T, method="dopri5", **TOLERANCE)[-1].sum()

        for transformed in (torch.func.grad(end), lambda y0: torch.func.jvp(end, (y0,), (torch.ones_like(y0),))):
            errors.forget_warnings()
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")  # torch's own among them
                transformed(START)
            assert sum(x.category is sa.StiffnessWarning for x in given) == 1

    def test_are_noticed_under_compile(self):
        solution, _ = solved(stiff, compile=True)
        assert solution.stats.stiff_at is not None

    def test_are_not_looked_for_where_a_program_measures_the_error(self):
        solution, given = solved(stiff, capture=True)
        assert solution.stats.stiff_at is None and not given


class TestWhatItCosts:
    @pytest.mark.parametrize("method", EMBEDDED)
    def test_no_f_call_and_no_other_step(self, method, monkeypatch):
        with_it, _ = solved(stiff, method=method)
        monkeypatch.setattr(stiffness, "EVERY", 10**9)
        without, _ = solved(stiff, method=method)
        assert without.stats.stiff_at is None
        assert with_it.stats.f_calls_forward == without.stats.f_calls_forward
        assert torch.equal(with_it.grid.h, without.grid.h) and torch.equal(with_it.ys, without.ys)

    @pytest.mark.parametrize("method", ["bosh3", "dopri8"])  # the pretended card is slow, and there is one loop
    def test_no_wait(self, method, monkeypatch):
        monkeypatch.setattr(arguments, "require_values", lambda y0, t: None)
        monkeypatch.setattr(stiffness, "EVERY", 5)  # so that few steps are enough
        with PretendCard() as card:
            y0 = on_card(START)
            card.waits.clear()
            solution, _ = solved(stiff, y0, 0.1 * T, method=method, options={"first_step": 1e-4})
            assert solution.stats.stiff_at is not None
            assert len(card.waits) == solution.stats.accepted + solution.stats.rejected

    def test_one_sample_in_fifty_steps_of_another_problem(self, monkeypatch):
        sampled = []
        norms = StiffnessTest.norms
        monkeypatch.setattr(StiffnessTest, "norms", lambda self, step: sampled.append(step.t) or norms(self, step))
        solution, _ = solved(lorenz, torch.ones(3, dtype=torch.float64), 10.0 * T, rtol=1e-6, atol=1e-6)
        starts = solution.grid.t.tolist()
        assert len(starts) > 2 * EVERY
        assert sorted(set(sampled)) == starts[EVERY::EVERY]  # more than once where a step was rejected

    def test_no_graph(self):
        y0 = START.clone().requires_grad_()
        step = Step(_Func(stiff), sa.METHODS["dopri5"], 0.0, 1e-3, 1e-3, y0)
        step.evaluate(7)
        assert step.ks[6].requires_grad
        assert not any(x.requires_grad for x in StiffnessTest(sa.METHODS["dopri5"]).norms(step))


class _Func:
    """A right-hand side that a Step may call."""

    code = None

    def __init__(self, func):
        self.func = func

    def __call__(self, t, y):
        return self.func(t, y)


class TestOrdinaryProblems:
    @pytest.mark.parametrize("keywords", [{}, {"rtol": 1e-7, "atol": 1e-9}], ids=["loose", "default"])
    @pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "dopri8", "dop853"])
    @pytest.mark.parametrize(
        ("func", "y0", "end"),
        [
            (lorenz, [1.0, 1.0, 1.0], 5.0),
            (kepler, [0.4, 0.0, 0.0, 2.0], 10.0),
            (spiral, [[2.0, 0.0]], 10.0),
            (van_der_pol(5.0), [2.0, 0.0], 10.0),
            (Net(), [[2.0, 0.0], [1.0, -3.0]], 30.0),
            (lambda t, y: torch.stack([y[1], -y[0]]), [1.0, 0.0], 50.0),
        ],
        ids=["lorenz", "kepler", "spiral", "van der pol", "net", "harmonic"],
    )
    def test_give_no_warning(self, func, y0, end, method, keywords):
        t = torch.tensor([0.0, end], dtype=torch.float64)
        solution, given = solved(func, torch.tensor(y0, dtype=torch.float64), t, method=method, **keywords)
        assert solution.stats.stiff_at is None and not given

    def test_nor_does_a_normalizing_flow(self):
        x = torch.linspace(-2.0, 2.0, 16, dtype=torch.float64).reshape(8, 2)
        solution, given = solved(Flow(), (x, torch.zeros_like(x[:, 0])), 8.0 * T, rtol=1e-11, atol=1e-11)
        assert solution.stats.accepted > EVERY
        assert solution.stats.stiff_at is None and not given

    def test_nor_does_a_stiff_part_of_a_long_solve(self):
        """It is in the stats, and would be in an error."""

        def briefly(t, y):
            fast = 1e4 * ((t - 5.0).abs() < 0.05)
            return torch.stack([lorenz(t, y)[i] for i in range(3)] + [-(1.0 + fast) * (y[3] - torch.cos(t))])

        t = torch.tensor([0.0, 30.0], dtype=torch.float64)
        solution, given = solved(briefly, torch.ones(4, dtype=torch.float64), t, rtol=1e-5, atol=1e-6)
        assert 4.9 < solution.stats.stiff_at < 5.1 and not given

    def test_a_fixed_grid_is_not_looked_at(self):
        solution, given = solved(spiral, torch.tensor([[2.0, 0.0]]), method="rk4", options={"step_size": 1e-3})
        assert solution.stats.stiff_at is None and not given


class TestErrors:
    def test_too_many_steps_of_a_stiff_problem_name_the_methods_to_try(self):
        with pytest.raises(sa.TooManySteps, match="raise max_num_steps") as caught:
            sa.odeint(stiff, START, 10.0 * T, options={"max_num_steps": 300})
        assert "limited by the stability of dopri5" in str(caught.value)
        assert 'try method="kvaerno5" or "trbdf2"' in str(caught.value)

    def test_those_of_another_problem_do_not(self):
        with pytest.raises(sa.TooManySteps, match="max_num_steps") as caught:
            sa.odeint(lorenz, torch.ones(3, dtype=torch.float64), 100.0 * T, options={"max_num_steps": 300})
        assert "kvaerno5" not in str(caught.value)

    def test_steps_that_vanish_after_stiffness_say_so(self):
        def breaking(t, y):
            return torch.cat([stiff(t, y[:2]), (1.0 / (0.2 - t)).square() * torch.ones_like(y[2:])])

        y0 = torch.cat([START, START[:1]])
        with pytest.raises(sa.StepSizeUnderflow, match=r'limited by .* try method="kvaerno5" or "trbdf2"'):
            sa.odeint(breaking, y0, T, **TOLERANCE)

    def test_those_of_a_singularity_do_not(self):
        with pytest.raises(sa.StepSizeUnderflow) as caught:
            sa.odeint(lambda t, y: y.square(), torch.ones(1, dtype=torch.float64), 4.0 * T, rtol=1e-8, atol=1e-8)
        assert caught.value.accepted > 2 * EVERY and "kvaerno5" not in str(caught.value)


class TestTheCount:
    """Samples given by hand: the quotient of the norms, as a part of the bound."""

    def counted(self, *parts):
        """Return the test after steps from t = 0, 1, .. with these samples, from the first that is due."""
        test = StiffnessTest(sa.METHODS["dopri5"])
        bound = sa.METHODS["dopri5"].stability.bound
        parts, t = list(parts), 0
        while parts:
            if test.is_due:
                test.sample = (parts.pop(0) * bound, 1.0)
            test.accept(float(t))
            t += 1
        return test

    def test_the_first_sample_is_of_step_fifty(self):
        assert self.counted(*[1.0] * STIFF).found_at == EVERY + STIFF - 1

    def test_fewer_samples_near_the_bound_find_nothing(self):
        test = self.counted(*[1.0] * (STIFF - 1))
        assert test.found_at is None and test.found is None and test.is_due

    def test_others_in_between_do_not_count(self):
        below = 0.99 * NEAR
        samples = [1.0, *[below] * (NOT_STIFF - 1)] * STIFF
        assert self.counted(*samples).found_at == EVERY + (STIFF - 1) * NOT_STIFF

    def test_six_others_in_a_row_end_the_test(self):
        test = self.counted(*[1.0] * (STIFF - 1), *[0.0] * NOT_STIFF)
        assert test.found_at is None and not test.is_due

    @pytest.mark.parametrize("sample", [(math.inf, 1.0), (math.nan, 1.0), (1.0, 0.0), (1.0, math.nan)])
    def test_a_sample_that_is_no_number_is_not_near(self, sample):
        test = StiffnessTest(sa.METHODS["dopri5"])
        for t in range(EVERY + 1):
            test.sample = sample if t == EVERY else None
            test.accept(float(t))
        assert not test.is_due

    def test_a_warning_takes_two_tests_and_most_of_them(self):
        def warned(*tests):
            errors.forget_warnings()
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                self.counted(*(x for found in tests for x in ([1.0] * STIFF if found else [0.0]))).warn()
            return len(given)

        assert [warned(1), warned(1, 1), warned(0, 1, 1), warned(0, 1, 1, 0)] == [0, 1, 1, 0]
