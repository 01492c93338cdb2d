"""References against each other, and their error bars against the truth."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.problems import PROBLEMS, build
from symplectic_bench.references import Reference, compute_reference, load_reference, reference_file, store, taylor
from symplectic_bench.references.closed_form import closed_form_reference
from symplectic_bench.references.converged import converged_reference
from symplectic_bench.references.identity import identity
from symplectic_bench.references.store import METADATA, file_name, load, save
from symplectic_bench.references.taylor import can_expand, taylor_reference
from symplectic_bench.run.known_references import STANDARD, standard_cells, to_be_known
from tests.symplectic_bench.sample_cells import FIXED, make_cell

SIZES = {
    "linear": {"dim": 3},
    "mlp": {"state": 2, "width": 4, "layers": 2},
    "spiral": {"width": 3, "end": 2.0},
}

SOLVED = [name for name, family in PROBLEMS.items() if family.solution]
SMOOTH = ["linear", "mlp", "spiral", "van_der_pol", "lotka_volterra"]


def problem_of(name, batch=2, **sizes):
    outputs = {"outputs": 3} if "outputs" in PROBLEMS[name].sizes else {}
    return PROBLEMS[name].build({**outputs, **SIZES.get(name, {}), **sizes}, batch, "float64")


def distance(expected, found):
    """||found - expected|| / ||expected|| of two references' gradients, in the 2-norm of all entries together."""
    parts = zip(found.gradient, found.rest, expected.gradient, expected.rest, strict=True)
    off = torch.cat([((x - y) + (dx - dy)).flatten() for x, dx, y, dy in parts])  # x - y is exact where it matters
    length = torch.linalg.vector_norm(torch.cat([y.flatten() for y in expected.gradient]))
    return float(torch.linalg.vector_norm(off) / length)


def code_of(file):
    """Return the digest of the formula and the loss that a stored reference belongs to."""
    with np.load(file) as arrays:
        return json.loads(str(arrays[METADATA]))["of"]["code"]


class TestErrorBars:
    @pytest.mark.parametrize("name", SOLVED)
    def test_of_self_convergence_are_honest(self, name):
        problem = problem_of(name)
        exact, found = closed_form_reference(problem), converged_reference(problem)
        assert exact.bar < 1e-31  # what two doubles hold
        assert distance(exact, found) <= found.bar + exact.bar
        assert found.bar < 1e-9

    @pytest.mark.parametrize("adjoint", [False, True], ids=["variational", "adjoint"])
    @pytest.mark.parametrize("name", [name for name in SOLVED if not problem_of(name).jumps])
    def test_of_taylor_series_are_honest(self, name, adjoint):
        problem = problem_of(name)
        exact, found = closed_form_reference(problem), taylor_reference(problem, adjoint)
        assert distance(exact, found) <= found.bar + exact.bar
        assert found.bar < 1e-27

    @pytest.mark.parametrize("name", SMOOTH)
    def test_hold_between_all_pairs(self, name):
        problem = problem_of(name)
        found = [
            taylor_reference(problem, adjoint=False),
            taylor_reference(problem, adjoint=True),
            converged_reference(problem),
        ]
        for a in found:
            for b in found:
                assert distance(a, b) <= a.bar + b.bar
        assert max(found[0].bar, found[1].bar) < 1e-27 and distance(found[0], found[1]) < 1e-28


@pytest.mark.parametrize("name", ["linear", "mlp", "van_der_pol"])
def test_gradients_by_the_times_agree_with_the_library(name):
    problem = problem_of(name)
    t = problem.t.clone().requires_grad_()
    problem.loss(odeint(problem.func, problem.y0, t, method="dopri8", rtol=1e-12, atol=1e-12)).backward()
    ways = [
        taylor_reference(problem, adjoint=False),
        taylor_reference(problem, adjoint=True),
        converged_reference(problem),
    ]
    ways += [closed_form_reference(problem)] if problem.solution else []
    for reference in ways:
        # The library solves at a tolerance of 1e-12.
        assert relative_error([t.grad], [reference.by_times]) < 1e-9


def test_the_loss_and_the_final_state_belong_to_the_gradient():
    problem = problem_of("van_der_pol")
    ys = odeint(problem.func, problem.y0, problem.t, method="dopri8", rtol=1e-13, atol=1e-13)
    for reference in (taylor_reference(problem), converged_reference(problem)):
        assert reference.loss == pytest.approx(problem.loss(ys).item(), rel=1e-11)
        assert relative_error([ys[-1]], [reference.final_state]) < 1e-11


def test_each_sample_has_its_own_noise():
    """The noise of a flow, which its formula propagates through the layers."""
    generator = torch.Generator().manual_seed(0)
    family = PROBLEMS["flow"]
    from symplectic_bench.problems.problem import Source

    class Rows(Source):
        def rows(self, data, number):
            return self.normal(number, 2)

    drawn = family.draw(Rows(generator, None), 3, width=3, layers=1)
    problem = replace(drawn, formula=family.formula, sizes={**family.sizes, "width": 3, "layers": 1})
    found, check = taylor_reference(problem), converged_reference(problem)
    assert distance(found, check) <= found.bar + check.bar and found.bar < 1e-27


def test_where_the_adjoint_equation_explodes_the_variational_equations_are_solved(monkeypatch):
    """A stiff oscillator forgets its start: solved backwards from the end, rounding errors grow without bound."""
    problem = problem_of("van_der_pol", mu=5.0, outputs=1)
    expected = taylor_reference(problem, adjoint=False)
    monkeypatch.setattr(taylor, "MAX_VARIATIONAL", 0)  # every problem takes the adjoint form first
    assert distance(taylor_reference(problem), expected) == 0.0
    with pytest.raises(ArithmeticError, match="failed before t = 0"):
        taylor_reference(problem, adjoint=True)
    monkeypatch.setattr(taylor, "MAX_VARIATIONAL_FALLBACK", 7)  # 2 * (1 + 2 + 1) are needed
    with pytest.raises(ArithmeticError):
        taylor_reference(problem)


def test_a_series_that_fails_says_where():
    problem = problem_of("logistic", end=1.0)
    with torch.no_grad():
        problem.y0[0] = -1.0  # from here the solution becomes infinite in finite time
        problem.parameters[0].mul_(100.0)
    with pytest.raises(ArithmeticError, match=r"the Taylor series failed before t = 0\.3"):
        taylor_reference(problem)


def test_only_small_and_smooth_problems_are_expanded():
    problem = problem_of("mlp", state=2, width=4, layers=1)  # 2 samples of 2 * 2 + 26 equations
    assert can_expand(problem, 60) and not can_expand(problem, 59)
    assert not can_expand(replace(problem, jumps=(0.5,)), 60)


def test_small_steps_are_taken_where_a_series_fails(monkeypatch):
    def fails(problem):
        raise ArithmeticError("the Taylor series failed")

    monkeypatch.setattr(store, "taylor_reference", fails)
    assert store.best_reference(problem_of("mlp"), 1000).source == "self-convergence"


class TestStored:
    def test_the_most_accurate_way_is_taken(self, tmp_path):
        sources = {}
        for name, sizes in [("linear", {"dim": 3}), ("van_der_pol", {"end": 1.0}), ("mlp", {"width": 128})]:
            cell = make_cell(problem=name, sizes=sizes, batch=2)
            compute_reference(cell, tmp_path)
            sources[name] = load_reference(cell, tmp_path).source
        assert sources == {"linear": "closed form", "van_der_pol": "Taylor series", "mlp": "self-convergence"}

    def test_thirty_digits_are_kept(self, tmp_path):
        reference = closed_form_reference(problem_of("linear"))
        save(reference, {}, tmp_path / "one.npz")
        found = load(tmp_path / "one.npz")
        assert distance(reference, found) == 0.0 and (found.loss, found.bar) == (reference.loss, reference.bar)
        assert any(bool(x.abs().sum() > 0) for x in found.rest)

    def test_the_reference_of_a_float32_cell_uses_its_rounded_numbers(self, tmp_path):
        cells = [make_cell(problem="linear", sizes={"dim": 3}, dtype=dtype) for dtype in ("float32", "float64")]
        for cell in cells:
            compute_reference(cell, tmp_path)
        rounded, exact = (load_reference(cell, tmp_path) for cell in cells)
        assert rounded.final_state.dtype == torch.float64
        # Rounding the numbers to float32 moves the solution by about 1e-8.
        assert 1e-10 < relative_error([rounded.final_state], [exact.final_state]) < 1e-5

    def test_cells_of_one_problem_share_its_reference_whatever_their_steps(self, tmp_path):
        adaptive = make_cell(problem="linear", sizes={"dim": 3})
        fixed = make_cell(problem="linear", sizes={"dim": 3}, **FIXED, method="euler", steps=2)
        compute_reference(fixed, tmp_path)
        assert isinstance(load_reference(adaptive, tmp_path), Reference)
        before = reference_file(adaptive, tmp_path).stat().st_mtime_ns
        compute_reference(adaptive, tmp_path)
        assert reference_file(adaptive, tmp_path).stat().st_mtime_ns == before

    def test_changing_one_number_changes_the_problem(self, tmp_path):
        cell = make_cell(problem="linear", sizes={"dim": 3})
        compute_reference(cell, tmp_path)
        problem, file = build(cell, tmp_path), reference_file(cell, tmp_path)
        assert identity(problem) == identity(build(cell, tmp_path))
        with torch.no_grad():
            problem.parameters[0][0, 0] *= 1 + 2**-52
        assert identity(problem)["numbers"] != identity(build(cell, tmp_path))["numbers"]
        save(load(file), identity(problem), file)
        assert load_reference(cell, tmp_path) == "no reference was computed"
        compute_reference(cell, tmp_path)
        assert reference_file(cell, tmp_path) == file

    def test_a_reference_that_would_take_minutes_is_not_begun(self, tmp_path, monkeypatch):
        cell = make_cell(problem="mlp", sizes={"width": 128}, batch=2)
        monkeypatch.setattr(store, "MOST_WORK", 1e4)
        monkeypatch.setattr(store, "best_reference", lambda *_: pytest.fail("it was begun"))
        why = compute_reference(cell, tmp_path)
        assert why == "no reference was computed: batch x parameters is 3.8e+04, more than 1e+04"
        assert load_reference(cell, tmp_path) == "no reference was computed" and not list(tmp_path.iterdir())

    def test_a_missing_reference_is_a_reason(self, tmp_path):
        assert load_reference(make_cell(seed=12345), tmp_path) == "no reference was computed"

    @pytest.mark.parametrize("bar", [1e-3, float("nan")])
    def test_a_reference_that_has_not_converged_is_a_reason(self, bar, tmp_path):
        cell = make_cell(problem="linear", sizes={"dim": 3})
        compute_reference(cell, tmp_path)
        file = reference_file(cell, tmp_path)
        save(replace(load(file), bar=bar), identity(build(cell, tmp_path)), file)
        assert "has not converged (closed form): its error bar is" in str(load_reference(cell, tmp_path))

    def test_exactly_the_standard_problems_have_known_references(self, tmp_path):
        """They belong to the present formulas: `symplectic-bench references` writes the missing ones."""
        cells = {file_name(c): c for c in standard_cells(STANDARD) if to_be_known(c, tmp_path)}
        assert {file.name for file in store.KNOWN.glob("*.npz")} == set(cells)
        for file in store.KNOWN.glob("*.npz"):
            problem = store.reference_problem(cells[file.name], tmp_path)
            assert code_of(file) == identity(problem)["code"]
            reference = load(file)
            assert reference.bar < (1e-20 if reference.source == "Taylor series" else store.MAX_BAR)
            assert file.stat().st_size < 500_000

    def test_a_known_reference_is_reproduced(self, tmp_path):
        cell = next(c for c in standard_cells(("accuracy",)) if c.problem == "lotka_volterra")
        known, found = load(store.KNOWN / file_name(cell)), taylor_reference(build(cell, tmp_path))
        # On a machine that draws other last places, the references differ by as much.
        assert distance(known, found) < (1e-28 if reference_file(cell, tmp_path) is not None else 1e-13)
