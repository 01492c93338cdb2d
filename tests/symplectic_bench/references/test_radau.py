"""References by Radau against Taylor series, closed forms and the library."""

import pytest
import torch

from symplectic_bench.problems import PROBLEMS
from symplectic_bench.references import radau, store
from symplectic_bench.references.closed_form import closed_form_reference
from symplectic_bench.references.converged import converged_reference
from symplectic_bench.references.radau import is_stiff, radau_reference
from symplectic_bench.references.taylor import can_expand, taylor_reference


def problem_of(name, batch=2, **sizes):
    return PROBLEMS[name].build(sizes, batch, "float64")


@pytest.fixture(autouse=True)
def looser(monkeypatch):
    """Take tolerances at which a solve is a matter of seconds."""
    monkeypatch.setattr(radau, "TOLERANCE", 1e-9)
    monkeypatch.setattr(radau, "CHECK_TOLERANCE", 1e-8)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("logistic", {"outputs": 2}), ("linear", {"dim": 3}), ("forced", {"pieces": 3, "end": 2.0, "outputs": 2})],
)
def test_the_error_bar_is_honest_and_jumps_are_met(name, sizes):
    problem = problem_of(name, **sizes)
    exact, found = closed_form_reference(problem), radau_reference(problem)
    assert exact.error_of(found.gradient) <= found.bar < 1e-6
    assert found.loss == pytest.approx(exact.loss, rel=1e-7) and found.source == "Radau"
    torch.testing.assert_close(found.final_state, exact.final_state, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.by_times, exact.by_times, rtol=1e-5, atol=1e-6)


STIFFER = [
    ("robertson", {"end": 0.05, "outputs": 2}),
    ("hires", {"end": 1.0, "outputs": 1}),
    ("stiff_spiral", {"width": 3, "end": 0.2, "outputs": 1}),
    ("van_der_pol", {"mu": 1000.0, "end": 0.1, "outputs": 1}),
    ("pharmacokinetics", {"width": 2, "doses": 1, "end": 0.2, "outputs": 1}),
    ("allen_cahn", {"points": 6, "end": 0.2, "outputs": 1}),
    ("brusselator", {"points": 4, "end": 0.2, "outputs": 1}),
    ("brusselator_2d", {"points": 2, "end": 0.1, "outputs": 1}),
]
"""The stiff problems, at sizes at which explicit methods are affordable too."""


@pytest.mark.parametrize(("name", "sizes"), STIFFER)
def test_an_explicit_method_finds_the_same_gradient(name, sizes):
    problem = problem_of(name, batch=1, **sizes)
    found, other = radau_reference(problem), converged_reference(problem)
    assert other.error_of(found.gradient) <= found.bar + other.bar
    assert max(found.bar, other.bar) < 1e-6


def test_it_agrees_with_a_taylor_series():
    problem = problem_of("van_der_pol", mu=50.0, end=0.5, outputs=1)
    if not can_expand(problem, 100):
        pytest.skip("heyoka is not installed")
    found, series = radau_reference(problem), taylor_reference(problem)
    assert series.error_of(found.gradient) <= found.bar + series.bar


def test_only_small_problems_over_many_of_their_time_constants_are_stiff():
    assert is_stiff(problem_of("van_der_pol", mu=1000.0, end=2000.0))
    assert is_stiff(problem_of("robertson", end=1000.0))
    assert not is_stiff(problem_of("van_der_pol")) and not is_stiff(problem_of("robertson"))
    assert not is_stiff(problem_of("stack", state=2, width=3, layers=1))
    large = problem_of("stiff_spiral", rate=1e6)
    assert is_stiff(problem_of("stiff_spiral", rate=1e6, width=4))
    assert large.y0.numel() * sum(x.numel() for x in large.inputs) <= radau.MAX_VARIATIONS
    assert not is_stiff(problem_of("stiff_spiral", batch=10, rate=1e6))


def test_a_stiff_problem_takes_it_and_no_series(monkeypatch):
    monkeypatch.setattr(store, "taylor_reference", lambda problem: pytest.fail("it was tried"))
    monkeypatch.setattr(radau, "STIFF", 10.0)
    assert store.best_reference(problem_of("van_der_pol", mu=50.0, end=0.5), 1000).source == "Radau"


def test_a_solution_that_explodes_is_named_with_its_time(monkeypatch):
    monkeypatch.setattr(radau, "TOLERANCE", 1e-3)
    problem = problem_of("logistic", batch=1, end=1.0, outputs=1)
    with torch.no_grad():
        problem.y0[0] = -1.0  # from here the solution becomes infinite in finite time
        problem.parameters[0].mul_(100.0)
    with pytest.raises(ArithmeticError, match="Radau failed between t = 0 and 1: "):
        radau_reference(problem)
