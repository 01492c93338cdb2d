"""Each contender against ours: the same problem, the same method, and a gradient that is as near as it can be.

Continuous integration installs neither torchode nor diffrax nor the paper's code: there their tests are skipped.
"""

from dataclasses import replace

import pytest
import torch

from symplectic_adjoint import METHODS
from symplectic_bench.contenders import CONTENDERS, Counts, NoGradient, decline, missing
from symplectic_bench.contenders.contender import CountedField
from symplectic_bench.contenders.diffrax import METHOD_CLASSES as DIFFRAX_METHODS
from symplectic_bench.contenders.floor import FLOOR, shares
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.contenders.paper import ADAPTIVE as PAPER_ADAPTIVE
from symplectic_bench.contenders.paper import FIXED as PAPER_FIXED
from symplectic_bench.contenders.torchode import METHOD_CLASSES as TORCHODE_METHODS
from symplectic_bench.measure.floor import floor_tensor_bytes, measure_floor
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.measure.tensor_memory import measure_tensor_memory, peaks
from symplectic_bench.measure.wall_time import measure_wall_time
from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.problems import PROBLEMS, build
from symplectic_bench.run import processes as process
from symplectic_bench.run.cells import Measuring, RunSettings
from symplectic_bench.run.processes import Limits
from symplectic_bench.spec.expansion import Vocabulary, expand
from symplectic_bench.spec.failure import Diverged
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Suite
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.work import measured

ROUNDING = 1e-12
"""Of a gradient in float64, over some hundred f calls summed in another order."""

SPAWNED = Limits(timeout_s=120, spawned=True)


def installed(contender):
    """The contender, or a skip that says what to install."""
    if reason := CONTENDERS[contender].missing():
        pytest.skip(reason)
    return CONTENDERS[contender]


def observed(cell, cache_dir):
    observation = CONTENDERS[cell.contender].observe(build(cell, cache_dir), cell)
    return {
        "loss": observation.loss,
        "gradient": [g.tolist() for g in observation.gradient],
        "steps_accepted": observation.counts.steps_accepted,
    }


def all_observed(cells, cache_dir):
    for cell in cells:
        yield observed(cell, cache_dir)


def as_float64(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def distance(theirs, cell, cache_dir):
    """Of a contender's gradient from our symplectic one at the same accuracy, relative."""
    mine = observed(replace(cell, contender="ours", gradient="symplectic"), cache_dir)
    assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    return relative_error(*([as_float64(g) for g in one["gradient"]] for one in (theirs, mine)))


RIVALS = [(name, gradient) for name in ("torchdiffeq", "paper", "torchode") for gradient in CONTENDERS[name].gradients]


@pytest.mark.parametrize(("contender", "their_gradient"), RIVALS)
def test_a_rivals_gradient_is_ours_to_what_the_tolerance_explains(contender, their_gradient, tmp_path):
    installed(contender)
    cell = make_cell(contender=contender, gradient=their_gradient, rtol=1e-7, atol=1e-7)
    # Other steps, each with an error of about the tolerance; an adjoint solve adds that of its own steps.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 1e-4


STEPPED = [
    *(("paper", name) for name in PAPER_FIXED),
    *(("torchode", name) for name in TORCHODE_METHODS if name != "adaptive_heun"),
]


@pytest.mark.parametrize("contender", ["ours", "torchdiffeq"])
@pytest.mark.parametrize("accuracy", [{"rtol": 1e-7, "atol": 1e-7}, {**FIXED, "method": "rk38", "steps": 8}])
def test_the_steps_of_a_continuous_adjoints_second_solve_are_told(contender, accuracy, tmp_path):
    cell = make_cell(contender=contender, gradient="continuous", **accuracy)
    counts = CONTENDERS[contender].observe(build(cell, tmp_path), cell).counts
    assert counts.steps_backward and counts.steps_backward * 4 <= counts.f_calls_backward
    if cell.steps is not None:
        assert counts.steps_backward == cell.steps
    exact = replace(cell, gradient="backprop")
    assert CONTENDERS[contender].observe(build(exact, tmp_path), exact).counts.steps_backward is None


@pytest.mark.parametrize(("contender", "their_method"), STEPPED)
def test_on_equal_steps_a_rivals_method_is_ours_of_the_same_name(contender, their_method, tmp_path):
    installed(contender)
    cell = make_cell(contender=contender, gradient="backprop", method=their_method, **FIXED, steps=5)
    assert decline(cell) is None
    theirs = observed(cell, tmp_path)
    assert distance(theirs, cell, tmp_path) < ROUNDING
    assert theirs["steps_accepted"] == 5


# Not fehlberg2: the paper's takes its embedded formula for the error estimate, so that it needs 1 / rtol steps.
@pytest.mark.parametrize("their_method", [name for name in PAPER_ADAPTIVE if name != "fehlberg2"])
def test_the_papers_adaptive_methods_are_ours_of_the_same_name(their_method, tmp_path):
    installed("paper")
    cell = make_cell(contender="paper", gradient="symplectic", method=their_method, rtol=1e-5, atol=1e-5)
    # At one tolerance, with steps that differ a little in size, the errors differ by less than the tolerances.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 10 * cell.rtol


@pytest.mark.parametrize("their_gradient", ["symplectic", "aca", "baseline"])
def test_the_papers_gradients_are_those_of_its_steps(their_gradient, tmp_path):
    installed("paper")
    cell = make_cell(contender="paper", gradient=their_gradient, method="rk4", **FIXED, steps=6)
    found = {k: v for values in measure_gradient_error(cell, tmp_path) for k, v in values.items()}
    assert found["error_discrete"] < ROUNDING and found["forward_disagrees"] is False


def test_the_papers_outputs_are_among_its_steps(tmp_path):
    cell = make_cell(contender="paper", gradient="symplectic", method="rk4", **FIXED, steps=6, sizes={"outputs": 3})
    assert decline(cell) is None
    assert "multiple of 4" in str(decline(replace(cell, sizes=(("outputs", 4),))))
    installed("paper")
    assert distance(observed(cell, tmp_path), cell, tmp_path) < ROUNDING


def test_torchode_tells_the_steps_of_the_slowest_sample():
    cell = make_cell(contender="torchode", gradient="backprop")
    counts = installed("torchode").observe(PROBLEMS["mlp"].build({}, 3, "float64"), cell).counts
    # Two calls choose the first step, and k_1 is the last step's last.
    assert counts.f_calls_forward == 2 + 6 * (counts.steps_accepted + counts.steps_rejected)


def test_torchode_solves_float32_problems_in_float32(tmp_path):
    installed("torchode")
    cell = make_cell(contender="torchode", gradient="backprop", dtype="float32", rtol=1e-4, atol=1e-4)
    # Rounding is a thousandth of the tolerance.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 1e-2


IN_JAX = {"contender": "diffrax", "gradient": "backprop"}
# Every method; a cell takes ten seconds to compile.
STEPPED_IN_JAX = [
    make_cell(**IN_JAX, problem=problem, sizes={"outputs": 1}, method=method, **FIXED, steps=4)
    for method, problem in [
        ("euler", "linear"),
        ("midpoint", "identity"),
        ("heun2", "van_der_pol"),
        ("bosh3", "lotka_volterra"),
        ("tsit5", "mlp"),
        ("dopri8", "kepler"),
    ]
]
ADAPTIVE_IN_JAX = [
    make_cell(**IN_JAX, rtol=1e-7, atol=1e-7),
    make_cell(**IN_JAX, rtol=1e-4, atol=1e-4, method="adaptive_heun", sizes={"outputs": 2}, dtype="float32"),
]
TOO_SMALL_A_TOLERANCE = make_cell(**IN_JAX, rtol=1e-12, atol=1e-12, method="adaptive_heun")


@pytest.fixture(scope="module")
def in_jax(tmp_path_factory):
    """All of these in one process, of which the last one fails."""
    installed("diffrax")
    cells = [*STEPPED_IN_JAX, *ADAPTIVE_IN_JAX, TOO_SMALL_A_TOLERANCE]
    return process.run(all_observed, (cells, tmp_path_factory.mktemp("cache")), SPAWNED)


class TestDiffrax:
    @pytest.mark.parametrize("place", range(len(STEPPED_IN_JAX)))
    def test_on_equal_steps_its_method_is_ours_and_a_field_in_jax_the_problems(self, place, in_jax, tmp_path):
        theirs, cell = in_jax.values[place], STEPPED_IN_JAX[place]
        assert decline(cell) is None
        assert distance(theirs, cell, tmp_path) < ROUNDING
        assert theirs["steps_accepted"] == 4

    @pytest.mark.parametrize("place", range(len(ADAPTIVE_IN_JAX)))
    def test_its_gradient_is_ours_to_what_the_tolerance_explains(self, place, in_jax, tmp_path):
        theirs, cell = in_jax.values[len(STEPPED_IN_JAX) + place], ADAPTIVE_IN_JAX[place]
        # Some hundred tolerances: the steps are not the same ones.
        assert distance(theirs, cell, tmp_path) < 300 * cell.rtol

    def test_a_solve_that_needs_too_many_steps_has_diverged(self, in_jax):
        assert in_jax.status is Status.DIVERGED and in_jax.reason == "diffrax was not at the end after 4096 steps"

    def test_every_method_is_among_these(self):
        assert {cell.method for cell in STEPPED_IN_JAX + ADAPTIVE_IN_JAX} == set(DIFFRAX_METHODS)

    def test_it_is_timed_beside_others_as_a_whole_after_the_first_call(self, tmp_path):
        installed("diffrax")
        cells = [make_cell(problem="linear", **who) for who in (IN_JAX, {"gradient": "backprop"})]
        outcome = process.run(measure_wall_time, (cells, tmp_path, 1, 2), SPAWNED)
        assert outcome.ok, outcome.reason
        (first,) = [value["compile_s"] for value in outcome.values if "compile_s" in value]
        theirs = [value["total_s"] for value in outcome.values if "total_s" in value]
        assert len(theirs) == 2 and first > 10 * min(theirs) > 0
        assert [value["cell"] for value in outcome.values if "forward_s" in value] == [1, 1]

    def test_its_memory_is_not_torchs(self, tmp_path):
        uncounted = Counts(None, None, None, None, 3, 0)
        *_, found = measure_tensor_memory(make_cell(**IN_JAX, problem="linear"), tmp_path, uncounted)
        assert list(found) == ["reason"] and "torch's allocator" in found["reason"]


class TestDecline:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"contender": "paper", "gradient": "stages"}, "paper has no gradient 'stages'"),
            ({"contender": "paper", "method": "tsit5"}, "no method 'tsit5'"),
            ({"contender": "paper", **FIXED, "steps": 3}, "tolerances only"),
            ({"contender": "paper", "method": "rk4"}, "takes steps, not tolerances"),
            ({"contender": "torchode", "gradient": "aca"}, "torchode has no gradient 'aca'"),
            ({"contender": "torchode", "gradient": "backprop", "method": "rk4"}, "no method 'rk4'"),
            ({"contender": "torchode", "gradient": "backprop", "method": "euler"}, "takes steps, not tolerances"),
            ({"contender": "diffrax", "gradient": "backprop", "method": "rk4", **FIXED, "steps": 3}, "no method 'rk4'"),
            ({"contender": "diffrax", "gradient": "backprop", "device": "cuda"}, "on the CPU only"),
            ({"contender": "diffrax", "gradient": "backprop", "problem": "forced"}, "diffrax is not told its jumps"),
            ({"contender": "floor", "gradient": "continuous"}, "floor has no gradient 'continuous'"),
            ({"contender": "floor", "method": "rk4"}, "takes steps, not tolerances"),
            ({"contender": "ours-compiled", "gradient": "exact"}, "no gradient 'exact'"),
        ],
    )
    def test_an_impossible_pair_has_a_reason_whatever_is_installed(self, changes, reason):
        assert reason in str(decline(make_cell(**changes)))

    @pytest.mark.parametrize(
        ("contender", "hint"),
        [
            ("torchode", ".[peers]"),
            ("diffrax", ".[peers]"),
            ("paper", "github.com/tksmatsubara"),
            ("torchdiffeq", "pip"),
        ],
    )
    def test_what_is_not_installed_is_missing_and_not_impossible(self, contender, hint, monkeypatch):
        monkeypatch.setattr("symplectic_bench.contenders.contender.find_spec", lambda name: None)
        cell = make_cell(contender=contender, gradient="backprop")
        assert decline(cell) is None
        reason = str(missing(cell))
        assert "is not installed: " in reason and hint in reason

    def test_a_suite_with_a_rival_that_is_not_installed_is_right_and_its_cells_are_skipped(self, monkeypatch, tmp_path):
        monkeypatch.setattr("symplectic_bench.contenders.contender.find_spec", lambda name: None)
        fields = {"name": "small", "title": "Small", "description": "For tests.", "max_cells": 10, "budget_s": 60}
        block = {"problem": [{"name": "linear", "dim": 3}], "method": "euler", "steps": 2, "batch": 2,
                 "dtype": "float64", "device": "cpu", "threads": 1, "seed": 0,
                 "contenders": {"torchode": ["backprop"], "diffrax": ["backprop"]}}  # fmt: skip
        suite = Suite.model_validate(fields | {"cell_timeout_s": 30, "block": [block]})
        vocabulary = Vocabulary({"linear": PROBLEMS["linear"].sizes}, tuple(METHODS), decline)
        rows = list(measured(Measuring(RunSettings(30, 1, 0, tmp_path)), expand(suite, vocabulary)))
        assert [row.status for row in rows] == [Status.SKIPPED] * 2
        assert all("is not installed" in row.reason for row in rows)

    def test_without_a_compiler_only_what_compiles_is_missing(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert "'no-such-compiler'" in str(missing(make_cell(contender="ours-compiled")))
        assert missing(make_cell(contender="ours-float64")) is None

    def test_a_gradient_that_a_keyword_does_not_go_with_is_impossible(self):
        assert "compile=True" in str(decline(make_cell(contender="ours-compiled", gradient="aca")))
        assert "accumulate='float64'" in str(decline(make_cell(contender="ours-float64", gradient="backprop")))
        assert decline(make_cell(contender="ours-float64", gradient="aca")) is None


@pytest.mark.parametrize(
    ("contender", "keywords"),
    [
        ("ours", {"compile": False, "accumulate": None}),
        ("ours-compiled", {"compile": True, "accumulate": None}),
        ("ours-float64", {"compile": False, "accumulate": "float64"}),
        ("ours-compensated", {"compile": False, "accumulate": "compensated"}),
    ],
)
def test_variants_of_ours_are_keywords_of_solve(contender, keywords, monkeypatch):
    given = {}
    monkeypatch.setattr(
        "symplectic_bench.contenders.ours.solve", lambda *args, **options: given.update(options) or 1 / 0
    )
    problem, cell = PROBLEMS["linear"].build({}, 2, "float64"), make_cell(contender=contender, gradient="stages")
    with pytest.raises(ZeroDivisionError):
        CONTENDERS[contender].gradient(problem, cell).complete()
    assert {name: given[name] for name in keywords} == keywords and given["gradient"] == "stages"


SETTINGS = [{"method": "dopri5"}, {"method": "rk4", **FIXED, "steps": 5}, {"method": "tsit5", **FIXED, "steps": 1}]


class TestFloor:
    @pytest.mark.parametrize("setting", SETTINGS, ids=["dopri5", "rk4", "one-step"])
    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_it_makes_the_calls_that_ours_makes(self, gradient, setting, tmp_path):
        sizes = {"end": 1.0}
        cell = make_cell(problem="van_der_pol", sizes=sizes, gradient=gradient, contender="floor", **setting)
        problem = build(cell, tmp_path)
        ours = OURS.observe(build(cell, tmp_path), replace(cell, contender="ours")).counts
        counted = CountedField(problem.func)
        run = FLOOR.gradient(replace(problem, func=counted), cell)
        counted.calls, counted.vjps = [0, 0], [0, 0]  # it has counted ours, with a copy
        run.forward()
        counted.backward_phase = True
        run.backward()
        assert counted.counts(ours.steps_accepted, ours.steps_rejected) == ours
        assert FLOOR.observe(problem, cell).counts == ours

    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_its_peak_is_the_formulas(self, gradient, tmp_path):
        cell = make_cell(contender="floor", gradient=gradient, batch=64, sizes={"state": 8, "width": 32})
        problem = build(cell, tmp_path)
        floor, _ = measure_floor(problem)
        counts = FLOOR.observe(problem, cell).counts
        formula = floor_tensor_bytes(floor, gradient, counts.steps_accepted, METHODS[cell.method].stages)
        # Not to a byte: the allocator's blocks are of 64 bytes, and the first gradients come one after the other.
        assert peaks(problem, cell)["peak_tensor_bytes"] == pytest.approx(formula, rel=0.02)

    @pytest.mark.parametrize("gradient", FLOOR.gradients)
    def test_between_the_passes_it_holds_what_the_gradient_must(self, gradient, tmp_path):
        cell = make_cell(contender="floor", gradient=gradient, batch=64, method="rk4", **FIXED, steps=10)
        problem = build(cell, tmp_path)
        floor, _ = measure_floor(problem)
        D, A = floor.state_bytes, floor.graph_bytes
        # With symplectic the stages of the last step too; with baseline the start, which is the problem's.
        held = {"symplectic": 14 * D, "aca": 10 * D, "stages": 40 * D, "baseline": 0, "backprop": 40 * A}
        # A graph's small parts: the time, the product of time and weights.
        assert peaks(problem, cell)["kept_tensor_bytes"] == pytest.approx(held[gradient], rel=0.02)

    @pytest.mark.parametrize("problem", [name for name, family in PROBLEMS.items() if not family.stacked])
    def test_it_runs_on_every_problem_and_leaves_gradients_of_its_parameters(self, problem, tmp_path):
        shorter = {"robertson": {"end": 0.01}, "outlier": {"factor": 2.0}, "lorenz": {"end": 0.5}}
        sizes = {"flow": {"data": "wine"}, **shorter}.get(problem, {})
        if problem == "flow":
            from symplectic_bench.data.tables import cache_table

            cache_table("wine", tmp_path)
        cell = make_cell(contender="floor", problem=problem, sizes=sizes, rtol=1e-3, atol=1e-3)
        for gradient in FLOOR.gradients:
            built = build(cell, tmp_path)
            FLOOR.gradient(built, replace(cell, gradient=gradient)).complete()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters), gradient

    def test_it_counts_ours_on_a_copy_and_once(self, tmp_path, monkeypatch):
        cell = make_cell(contender="floor", seed=12345)
        problem = build(cell, tmp_path)
        FLOOR.gradient(problem, cell)
        assert all(x.grad is None for x in problem.inputs)
        monkeypatch.setattr("symplectic_bench.contenders.floor.OURS", None)
        FLOOR.gradient(problem, cell)

    def test_its_row_has_counts_and_reasons_and_no_error(self, tmp_path):
        cell = make_cell(contender="floor")
        assert isinstance(FLOOR.observe(build(cell, tmp_path), cell), NoGradient)
        (found,) = measure_gradient_error(cell, tmp_path)
        assert found["error_true_reason"] == found["error_discrete_reason"] == "the floor computes no gradient"
        assert found["vjps_backward"] > 0 and "forward_disagrees" not in found and "loss" not in found

    def test_it_is_measured_like_any_other(self, tmp_path):
        cell = make_cell(contender="floor", gradient="aca")
        counts = FLOOR.observe(build(cell, tmp_path), cell).counts
        *_, found = measure_tensor_memory(cell, tmp_path, counts)
        assert found["peak_tensor_source"] == "exact" and found["peak_tensor_bytes"] > 0

    def test_shares_are_even_and_complete(self):
        assert shares(7, 3) == [3, 2, 2] and shares(0, 2) == [0, 0]
        assert all(sum(shares(n, 4)) == n for n in range(12))


def test_every_contender_says_what_it_is():
    for name, contender in CONTENDERS.items():
        assert contender.name == name and contender.gradients
        assert contender.framework in ("torch", "jax")
    assert [name for name, contender in CONTENDERS.items() if contender.compiles] == ["ours-compiled", "diffrax"]


class TestTorchDiffEqPack:
    @pytest.mark.parametrize(
        ("gradient", "how"),
        [("aca", {}), ("mali", {"rtol": 1e-4, "atol": 1e-4}), ("mali", {"steps": 20, **FIXED})],
        ids=["aca", "mali", "mali-steps"],
    )
    def test_its_gradient_is_ours_to_the_tolerance(self, gradient, how, tmp_path):
        theirs = make_cell(contender="torchdiffeqpack", gradient=gradient, **how)
        observation = installed("torchdiffeqpack").observe(build(theirs, tmp_path), theirs)
        ours = make_cell(gradient=gradient, **how)
        expected = OURS.observe(build(ours, tmp_path), ours)
        # Of adaptive steps the tolerance; of equal ones what times in float32 leave of a gradient in float64.
        assert relative_error(observation.gradient, expected.gradient) < (1e-6 if "steps" in how else 1e-3)
        assert observation.counts.f_calls_backward > expected.counts.f_calls_backward

    def test_what_it_has_not_is_declined_or_a_diverged_cell(self, tmp_path):
        cell = make_cell(contender="torchdiffeqpack", gradient="aca", steps=5, **FIXED)
        assert "fails on the way back over fixed steps" in decline(cell)
        assert "no method" in decline(make_cell(contender="torchdiffeqpack", gradient="aca", method="dopri8"))
        assert "no gradient" in decline(make_cell(contender="torchdiffeqpack", gradient="symplectic"))
        many = make_cell(contender="torchdiffeqpack", gradient="mali", sizes={"outputs": 3})
        with pytest.raises(Diverged, match="last time alone"):
            installed("torchdiffeqpack").observe(build(many, tmp_path), many)
