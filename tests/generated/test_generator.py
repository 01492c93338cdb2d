"""The generator itself: it draws every kind, and sees every sort of fault that is planted."""

from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import symplectic_adjoint as sa
from symplectic_adjoint.field.field import Field
from tests.generated import tally as tally_module
from tests.generated.case import EVENTS, METHODS, PASSES, draw
from tests.generated.changes import CHANGES
from tests.generated.closures import CLOSURES
from tests.generated.dtypes import DTYPES
from tests.generated.judgement import run
from tests.generated.outcome import Outcome
from tests.generated.refusal_guard import RefusalGuard
from tests.generated.solvers import Library, Replay
from tests.generated.states import STATES, mapped
from tests.generated.tally import Tally
from tests.generated.times import TIMES

FIRST = [draw(n) for n in range(1000)]
"""Those that CI runs."""


def plain(n, **given):
    """Return the n-th case with a module and nothing special, of which a fault leaves nothing right."""
    chosen = {"dtype": "float64", "event": "none", "outputs": "all", "closure": "module", "change": "nothing"}
    case = replace(draw(n), passes="once", gradient="symplectic", method="rk4", stepping="step size", autocast=False)
    return replace(case, **(chosen | given))


def test_an_id_is_always_the_same_case():
    torch.manual_seed(1)
    first = draw(4711)
    torch.manual_seed(2)
    assert draw(4711) == first and str(first).startswith("id=4711, state=")


AXES = {
    "state": STATES,
    "dtype": DTYPES,
    "method": [*METHODS, "leapfrog"],
    "stepping": ["adaptive", "step size", "grid t"],
    "gradient": sa.GRADIENTS,
    "outputs": TIMES,
    "event": EVENTS,
    "closure": CLOSURES,
    "change": CHANGES,
    "passes": PASSES,
    "autocast": [True, False],
    "wants_t": [True, False],
    "wants_y0": [True, False],
}


@pytest.mark.parametrize("axis", AXES)
def test_ci_runs_every_kind_several_times(axis):
    drawn = Counter(getattr(case, axis) for case in FIRST)
    assert set(drawn) == set(AXES[axis]) and min(drawn.values()) >= 8


PAIRS = {
    **{(axis, "gradient"): kinds for axis, kinds in AXES.items() if axis not in ("method", "stepping", "gradient")},
    ("closure", "dtype"): CLOSURES,
    ("state", "dtype"): STATES,
}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_nightly_run_has_every_pair(pair, nightly):
    one, other = pair
    drawn = {(getattr(case, one), getattr(case, other)) for case in nightly}
    missing = {(a, b) for a in PAIRS[pair] for b in AXES[other]} - drawn
    assert missing <= {("data assigned", "backprop")}


def test_the_nightly_run_has_every_change_of_every_closure(nightly):
    drawn = {(case.closure, case.change) for case in nightly}
    assert drawn == {(a, b) for a, kind in CLOSURES.items() for b, change in CHANGES.items() if change.applies(kind)}


@pytest.fixture(scope="module")
def nightly():
    return [draw(n) for n in range(10000)]


@pytest.mark.parametrize("passes", [x for x in PASSES if not x.startswith("upstream")])
def test_the_library_is_right_where_nothing_is_special(passes):
    assert run(plain(3, passes=passes)) == Outcome("right")


def test_a_gradient_that_is_off_by_a_millionth_of_a_millionth_is_seen(monkeypatch):
    transpose = Field.transpose

    def off(self, linearization, w, pull):
        return transpose(self, linearization, w * (1.0 + 1e-11), pull)

    monkeypatch.setattr(Field, "transpose", off)
    assert run(plain(3)).kind == "wrong"


def test_a_value_that_is_off_is_seen():
    class Off(Library):
        def __call__(self, *given):
            event_t, ys = super().__call__(*given)
            return event_t, mapped(lambda part: part + 1e-11 * part.detach().abs().max(), ys)

    assert run(plain(3), Off).kind == "wrong"


@pytest.mark.parametrize("error", [AttributeError, KeyError, RuntimeError, AssertionError, torch.OutOfMemoryError])
def test_an_error_that_is_not_the_librarys_is_a_crash(error, monkeypatch):
    def crash(*given, **keywords):
        raise error("planted")

    monkeypatch.setattr(Field, "__call__", crash)
    assert run(plain(3)).kind == "crash"


@pytest.mark.parametrize("error", [sa.LostGradient, sa.UnsupportedCombination, sa.SolverError, TypeError])
@pytest.mark.parametrize("change", ["nothing", "own step", "data assigned", "turned"])
def test_a_refusal_of_what_torchdiffeq_runs_is_seen(error, change, monkeypatch):
    def refuse(*given, **keywords):
        raise error("planted")

    monkeypatch.setattr(Field, "__call__", refuse)
    assert run(plain(3, change=change)).kind == "false refusal"


def test_a_refusal_of_what_torchdiffeq_does_not_run_either_is_counted_by_that_name(monkeypatch):
    def refuse(*given, **keywords):
        raise sa.UnsupportedCombination("planted")

    def raises(*given, **keywords):
        raise RuntimeError("planted")

    monkeypatch.setattr(Field, "__call__", refuse)
    monkeypatch.setattr("torchdiffeq.odeint", raises)
    assert run(plain(3)) == Outcome("refused", "torchdiffeq cannot either")


class Recomputing(Library):
    """A solver that is right until something changes: it calls func again in the backward pass, as it is then."""

    def __call__(self, func, y, t, event_fn):
        with torch.no_grad():
            super().__call__(func, y, t, event_fn)
        grid = self.grids[-1]

        def replayed(y, t):
            return Replay(self._case, [grid])(func, y, t, None)[1]

        return None, checkpoint(replayed, y, t, use_reentrant=False)


READ_AGAIN = [name for name, kind in CLOSURES.items() if kind.turns and name != "default argument"]


@pytest.mark.parametrize("closure", READ_AGAIN)
def test_what_func_reads_again_in_the_backward_pass_is_seen(closure):
    assert run(plain(3, closure=closure), Recomputing) == Outcome("right")
    for passes in ("once", "several"):
        assert run(plain(3, closure=closure, change="turned", passes=passes), Recomputing).kind == "wrong"


@pytest.mark.parametrize("change", ["mode", "data assigned"])
def test_other_changes_that_func_reads_again_are_seen(change):
    assert run(plain(3, change=change), Recomputing).kind == "wrong"


def test_a_solve_that_leaves_the_model_altered_is_seen():
    class Altering(Library):
        def __call__(self, func, *given):
            found = super().__call__(func, *given)
            func.gain = 0.123
            return found

    wrong = run(plain(3, gradient="backprop"), Altering)
    assert wrong.kind == "wrong" and "f afterwards" in wrong.detail


def test_a_solve_that_leaves_statistics_altered_is_seen():
    class Altering(Library):
        def __call__(self, func, *given):
            found = super().__call__(func, *given)
            func.head.num_batches_tracked += 1
            return found

    wrong = run(plain(3, gradient="backprop"), Altering)
    assert wrong.kind == "wrong" and "statistics afterwards" in wrong.detail


def tally_of(refused, total):
    """Return a tally of so many cases, of which some are refused by one name."""
    tally = Tally()
    for n in range(total):
        tally.add(draw(n), Outcome("refused", "a name") if n < refused else Outcome("right"))
    return tally


def test_tallies_of_several_processes_add_up():
    both = Tally()
    both.merge(tally_of(2, 10).to_text())
    both.merge(tally_of(1, 5).to_text())
    assert both.total == 15 and both.refusals == {"a name": 3}
    assert "refused:     3 of 15, 20.00%: a name" in both.table()
    assert sum(both.kinds[f"closure: {name}"].total() for name in CLOSURES) == 15


@pytest.mark.parametrize(("refused", "red"), [(3, False), (4, True)])
def test_a_rise_of_the_refusals_is_red(refused, red, monkeypatch, tmp_path):
    allowed = tmp_path / "allowed.json"
    allowed.write_text('{"20": {"a name": 3}}')
    monkeypatch.setattr(tally_module, "ALLOWED", allowed)
    guard = RefusalGuard()
    guard.tally = tally_of(refused, 20)
    assert bool(guard.rises()) == red


def test_a_refusal_by_a_name_that_has_no_allowance_is_red():
    assert tally_of(1, 20).rises({}) and not tally_of(1, 20).rises({"a name": 1})


def test_a_run_of_the_guard_fails_a_session_that_passed(monkeypatch, tmp_path):
    allowed = tmp_path / "allowed.json"
    allowed.write_text('{"20": {}}')
    monkeypatch.setattr(tally_module, "ALLOWED", allowed)
    guard, session = RefusalGuard(), type("Session", (), {"config": object(), "exitstatus": 0})()
    guard.pytest_sessionfinish(session)
    assert session.exitstatus == 0
    guard.tally = tally_of(1, 20)
    guard.pytest_sessionfinish(session)
    assert session.exitstatus == 1


def test_numbers_of_cases_that_are_run_regularly_have_an_allowance():
    assert all(tally_module.allowed_refusals(total) is not None for total in (1000, 10000))
    assert next(n for n in count(1) if tally_module.allowed_refusals(n) is None) == 1
