"""Methods that take the field in two parts: which problems they are given, and how. The method here is a stand-in."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from symplectic_adjoint import METHODS, solve
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.contenders.reasons import takes_pair
from symplectic_bench.contenders.registry import decline
from symplectic_bench.problems import build
from tests.symplectic_bench.sample_cells import make_cell

CELL = make_cell(method="imex", problem="allen_cahn", sizes={"points": 8, "end": 0.1})


@pytest.fixture(autouse=True)
def imex(monkeypatch):
    """Name a method that is additive."""
    own = SimpleNamespace(additive=True, implicit=True, adaptive=True, also_called=())
    for module in ("ours", "reasons"):
        monkeypatch.setattr(f"symplectic_bench.contenders.{module}.METHODS", {**METHODS, "imex": own})


def test_additive_methods_take_a_pair_and_explicit_ones_do_not():
    assert takes_pair("imex") and not takes_pair("dopri5")


def test_a_problem_in_one_part_is_declined():
    assert decline(CELL) is None
    assert (
        decline(replace(CELL, problem="mlp", sizes=())) == "imex takes a field in two parts, and that of mlp is in one"
    )


@pytest.mark.parametrize("method", ["imex", "dopri5"])
def test_the_pair_is_given_to_such_a_method_and_the_sum_to_any_other(method, monkeypatch, tmp_path):
    given = []

    def record(func, *args, **how):
        given.append(func)
        return solve(sum_of(func), *args, **{**how, "method": "dopri5"})

    monkeypatch.setattr("symplectic_bench.contenders.ours.solve", record)
    problem = build(CELL, tmp_path)
    OURS.gradient(problem, replace(CELL, method=method)).complete()
    assert given == [problem.pair if method == "imex" else problem.func]
    assert all(bool(g.abs().sum() > 0) for g in problem.gradient())


def sum_of(func):
    if not isinstance(func, tuple):
        return func
    explicit, implicit = func
    return lambda t, y: explicit(t, y) + implicit(t, y)
