"""diffrax against ours. Its tests are skipped where it is not installed."""

from dataclasses import replace

import pytest

from symplectic_adjoint import METHODS
from symplectic_bench.contenders import diffrax
from symplectic_bench.contenders.counts import Counts
from symplectic_bench.contenders.diffrax import BY_SAMPLE, PAIR_CLASSES
from symplectic_bench.contenders.diffrax import METHOD_CLASSES as DIFFRAX_METHODS
from symplectic_bench.contenders.registry import decline, missing
from symplectic_bench.measure.tensor_memory import measure_tensor_memory
from symplectic_bench.measure.wall_time import measure_wall_time
from symplectic_bench.run import processes as process
from symplectic_bench.run.processes import Limits
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.contenders.against_ours import (
    ROUNDING,
    SPAWNED,
    all_observed,
    distance,
    installed,
)
from tests.symplectic_bench.sample_cells import FIXED, make_cell

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
JUMPING_IN_JAX = make_cell(**IN_JAX, rtol=1e-6, atol=1e-6, problem="pharmacokinetics", sizes={"end": 1.0, "doses": 1})
IMPLICIT_IN_JAX = [
    make_cell(**IN_JAX, rtol=1e-7, atol=1e-7, method="kvaerno3", problem="robertson", sizes={"end": 0.05}),
    replace(JUMPING_IN_JAX, method="kvaerno5"),
    *(
        make_cell(**IN_JAX, rtol=1e-6, atol=1e-6, method=method, problem="stiff_spiral", sizes={"end": 0.2})
        for method in PAIR_CLASSES
    ),
]
"""Compared with ours by an explicit method, which the library has in every version."""
OTHER_ADJOINTS = [
    make_cell(**{**IN_JAX, "gradient": "direct"}, method="midpoint", problem="linear", **FIXED, steps=4),
    make_cell(**{**IN_JAX, "gradient": "direct"}, problem="linear"),
    make_cell(**{**IN_JAX, "gradient": "continuous"}, problem="linear"),
    make_cell(**{**IN_JAX, "gradient": "continuous"}, problem="linear", sizes={"outputs": 3}),
]
TOO_SMALL_A_TOLERANCE = make_cell(**IN_JAX, rtol=1e-12, atol=1e-12, method="adaptive_heun")


@pytest.fixture(scope="module")
def in_jax(tmp_path_factory):
    """All of these in one process, of which the last one fails."""
    installed("diffrax")
    cells = [*STEPPED_IN_JAX, *ADAPTIVE_IN_JAX, *OTHER_ADJOINTS, TOO_SMALL_A_TOLERANCE]
    return process.run(all_observed, (cells, tmp_path_factory.mktemp("cache")), SPAWNED)


@pytest.fixture(scope="module")
def stiff_in_jax(tmp_path_factory):
    """All of these in another process. A cell takes half a minute to compile."""
    installed("diffrax")
    cells = [JUMPING_IN_JAX, *IMPLICIT_IN_JAX]
    return process.run(all_observed, (cells, tmp_path_factory.mktemp("cache")), Limits(600, spawned=True))


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

    @pytest.mark.parametrize("place", range(len(OTHER_ADJOINTS)))
    def test_its_other_adjoints_give_our_gradient(self, place, in_jax, tmp_path):
        theirs, cell = in_jax.values[len(STEPPED_IN_JAX) + len(ADAPTIVE_IN_JAX) + place], OTHER_ADJOINTS[place]
        assert decline(cell) is None
        assert distance(theirs, cell, tmp_path) < (ROUNDING if cell.steps else 300 * cell.rtol)

    def test_what_its_backsolve_adjoint_cannot_do_is_declined(self):
        backsolve = {**IN_JAX, "gradient": "continuous"}
        for cell in (make_cell(**backsolve, **FIXED, steps=4), make_cell(**backsolve, problem="forced")):
            assert "BacksolveAdjoint turns back" in str(decline(cell))

    def test_a_version_without_a_reversible_adjoint_is_told_apart(self, monkeypatch):
        installed("diffrax")
        cell = make_cell(contender="diffrax-reversible", gradient="reversible")
        assert decline(cell) is None
        monkeypatch.setattr(
            diffrax, "_source_of_adjoints", lambda: "class RecursiveCheckpointAdjoint(AbstractAdjoint):"
        )
        assert "has no ReversibleAdjoint: install a version that has it" in str(missing(cell))
        monkeypatch.setattr(diffrax, "_source_of_adjoints", lambda: "class ReversibleAdjoint(AbstractAdjoint):")
        assert missing(cell) is None

    @pytest.mark.parametrize("place", range(1 + len(IMPLICIT_IN_JAX)))
    def test_its_implicit_methods_and_jumps_give_the_gradient_of_an_explicit_one(self, place, stiff_in_jax, tmp_path):
        assert stiff_in_jax.ok, stiff_in_jax.reason
        theirs = stiff_in_jax.values[place]
        cell = replace([JUMPING_IN_JAX, *IMPLICIT_IN_JAX][place], method="dopri5")
        assert distance(theirs, cell, tmp_path) < 1000 * cell.rtol
        assert theirs["steps_accepted"] > 3

    @pytest.mark.parametrize("cell", IMPLICIT_IN_JAX, ids=lambda cell: cell.method)
    def test_it_takes_implicit_cells_if_the_library_has_the_method(self, cell):
        if cell.method not in METHODS:
            pytest.skip(f"the library has no method {cell.method!r}")
        assert decline(cell) is None

    def test_a_solve_that_needs_too_many_steps_has_diverged(self, in_jax):
        assert in_jax.status is Status.DIVERGED and in_jax.reason == "diffrax had not reached the end after 4096 steps"

    def test_every_method_is_among_these(self):
        assert {cell.method for cell in STEPPED_IN_JAX + ADAPTIVE_IN_JAX} == set(DIFFRAX_METHODS)
        assert {cell.method for cell in IMPLICIT_IN_JAX} == set(BY_SAMPLE)

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
        for gradient in ("backprop", "direct"):  # of which ours has only the first
            cell = make_cell(contender="diffrax", gradient=gradient, problem="linear")
            *_, found = measure_tensor_memory(cell, tmp_path, uncounted)
            assert list(found) == ["reason"] and "torch's allocator" in found["reason"]
