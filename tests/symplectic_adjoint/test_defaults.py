"""The gradient and memory budget of calls that give none: set_default, its context, the environment."""

import asyncio
import threading

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
STEPS = {"step_size": 0.5}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    monkeypatch.delenv("SYMPLECTIC_ADJOINT_GRADIENT", raising=False)
    monkeypatch.delenv("SYMPLECTIC_ADJOINT_MEMORY_BUDGET", raising=False)
    yield
    sa.set_default(gradient=None, memory_budget=None)


def used(**keywords):
    """Return the name of the gradient that a solve used."""
    return sa.solve(SmallNet(), start(), T, options=STEPS, **keywords).stats.gradient


def budget_used(**keywords):
    return sa.solve(SmallNet(), start(), T, options=STEPS, **keywords).stats.choice.budget_bytes


class TestPrecedence:
    def test_without_a_default_it_is_symplectic(self):
        assert used() == "symplectic"

    def test_a_call_holds_for_the_process_until_it_is_undone(self):
        sa.set_default(gradient="backprop")
        seen = [used()]
        thread = threading.Thread(target=lambda: seen.append(used()))
        thread.start()
        thread.join()
        assert seen == ["backprop", "backprop"]
        sa.set_default(gradient=None)
        assert used() == "symplectic"

    def test_an_argument_wins_over_every_default(self, monkeypatch):
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "stages")
        sa.set_default(gradient="backprop")
        with sa.set_default(gradient="aca"):
            assert used(gradient="baseline") == "baseline"

    def test_the_context_wins_over_the_call_and_the_call_over_the_environment(self, monkeypatch):
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "stages")
        assert used() == "stages"
        sa.set_default(gradient="backprop")
        assert used() == "backprop"
        with sa.set_default(gradient="aca"):
            sa.set_default(gradient="baseline")
            assert used() == "aca"
        assert used() == "baseline"

    def test_contexts_nest_and_an_error_ends_them(self):
        with sa.set_default(gradient="aca"):
            with pytest.raises(KeyError), sa.set_default(gradient="stages"):
                assert used() == "stages"
                raise KeyError
            assert used() == "aca"
        assert used() == "symplectic"

    def test_one_setting_leaves_the_other(self):
        sa.set_default(gradient="auto")
        with sa.set_default(memory_budget="1 MiB"):
            assert used() == "auto" and budget_used() == 2**20
            with sa.set_default(gradient="aca"):
                assert used() == "aca"
                assert budget_used(gradient="auto") == 2**20
                assert budget_used(gradient="auto", memory_budget="3 MiB") == 3 * 2**20

    def test_a_context_can_be_entered_again(self):
        aca = sa.set_default(gradient="aca")
        for _ in range(2):
            with aca, aca:
                assert used() == "aca"
            assert used() == "symplectic"

    def test_an_object_is_a_default_too(self):
        with sa.set_default(gradient=sa.Symplectic(keep="stages")):
            assert used() == "Symplectic(keep='stages')"


class TestConcurrency:
    def test_another_thread_does_not_see_a_context(self):
        seen = []
        with sa.set_default(gradient="aca"):
            thread = threading.Thread(target=lambda: seen.append(used()))
            thread.start()
            thread.join()
        assert seen == ["symplectic"]

    def test_two_tasks_keep_their_own(self):
        async def solve_with(gradient, barrier):
            with sa.set_default(gradient=gradient):
                await barrier.wait()
                return used()

        async def both():
            barrier = asyncio.Barrier(2)
            return await asyncio.gather(solve_with("aca", barrier), solve_with("stages", barrier))

        assert asyncio.run(both()) == ["aca", "stages"]
        assert used() == "symplectic"


ENTRIES = {
    "odeint": lambda func, y0: sa.odeint(func, y0, T),
    "solve": lambda func, y0: sa.solve(func, y0, T),
    "odeint_adjoint": lambda func, y0: sa.odeint_adjoint(func, y0, T),
    "odeint_dense": lambda func, y0: sa.odeint_dense(func, y0, 0.0, 1.0),
    "NeuralODE": lambda func, y0: sa.NeuralODE(func)(y0, T),
    "check_gradient": lambda func, y0: sa.check_gradient(func, y0, T),
    "measure_memory": lambda func, y0: sa.measure_memory(func, y0, T),
    "odeint_event": lambda func, y0: sa.odeint_event(func, y0, 0.0, event_fn=lambda t, y: t - 0.5),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_function_without_its_own_gradient_takes_the_default(entry):
    asked = []

    class Spy(sa.Aca):
        def keeper(self, given):
            asked.append(entry)
            return super().keeper(given)

    with sa.set_default(gradient=Spy()):
        result = ENTRIES[entry](SmallNet(), start())
        if entry == "odeint_dense":
            result(0.5)
    assert asked


@pytest.mark.parametrize("name", ["odeint_symplectic_adjoint", "odeint_checkpoint", "odeint_onecheckpoint"])
def test_the_functions_of_the_paper_keep_their_gradients(name):
    expected = getattr(sa, name)(SmallNet(), start(), T)
    with sa.set_default(gradient="backprop"):
        found = getattr(sa, name)(SmallNet(), start(), T)
    assert type(found.grad_fn) is type(expected.grad_fn)


@pytest.mark.parametrize("diagnose", [sa.advise, sa.compare_gradients])
def test_what_covers_all_gradients_does_not_depend_on_the_default(diagnose):
    with sa.set_default(gradient="mali"):
        names = {row.gradient for row in diagnose(SmallNet(), start(), T, method="rk4", options=STEPS).rows}
    assert {"symplectic", "aca", "backprop"} <= names


class TestErrors:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"gradient": "simplectic"}, "unknown gradient 'simplectic', did you mean 'symplectic'"),
            ({"memory_budget": "lots"}, "memory_budget must be a number of bytes"),
            ({"memory_budget": -1}, "memory_budget must be positive"),
        ],
    )
    def test_a_bad_default_is_refused_when_it_is_set(self, setting, message):
        with pytest.raises(ValueError, match=message):
            sa.set_default(**setting)
        assert used() == "symplectic"

    def test_a_class_is_no_gradient(self):
        with pytest.raises(TypeError, match="gradient must be a name in GRADIENTS or an object"):
            sa.set_default(gradient=sa.Aca)

    def test_the_environment_is_named(self, monkeypatch):
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "backprob")
        with pytest.raises(ValueError, match="'backprob' in the environment variable SYMPLECTIC_ADJOINT_GRADIENT, did"):
            used()
        assert used(gradient="aca") == "aca"
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "auto")
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_MEMORY_BUDGET", "2 parsecs")
        with pytest.raises(ValueError, match="the environment variable SYMPLECTIC_ADJOINT_MEMORY_BUDGET must be a"):
            used()

    def test_a_variable_that_is_empty_is_not_set(self, monkeypatch):
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "")
        assert used() == "symplectic"

    def test_a_default_that_does_not_fit_the_call_says_where_it_was_set(self, monkeypatch):
        own = r"only works with its own method.*the default that was set by set_default\(\) in .*test_defaults"
        with sa.set_default(gradient="mali"), pytest.raises(sa.UnsupportedCombination, match=own):
            used(method="rk4")
        monkeypatch.setenv("SYMPLECTIC_ADJOINT_GRADIENT", "mali")
        with pytest.raises(
            sa.UnsupportedCombination, match="set by the environment variable SYMPLECTIC_ADJOINT_GRADIENT"
        ):
            used(method="rk4")
        with pytest.raises(sa.UnsupportedCombination) as explicit:
            used(method="rk4", gradient="mali")
        assert "default" not in str(explicit.value)

    def test_only_its_two_settings_are_accepted(self):
        with pytest.raises(TypeError):
            sa.set_default(method="rk4")
