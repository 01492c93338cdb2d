"""SciPy's stiff solvers with finite differences, against ours."""

from dataclasses import replace

import pytest
import torch

from symplectic_bench.contenders.registry import decline, missing
from symplectic_bench.contenders.scipy import SCIPY, SOLVERS
from symplectic_bench.measure.gradient_error import measure_gradient_error
from symplectic_bench.problems import build
from symplectic_bench.problems.pieces import pieces
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.spec.failure import TooCostly, diagnose
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.contenders.against_ours import distance, observed
from tests.symplectic_bench.sample_cells import make_cell
from tests.symplectic_bench.work import measured

CELL = make_cell(
    contender="scipy", gradient="differences-radau", problem="robertson", sizes={"end": 0.01}, rtol=1e-9, atol=1e-9
)
JUMPING = replace(CELL, problem="forced", sizes=(("end", 2.0), ("outputs", 2), ("pieces", 3)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("cell", [CELL, JUMPING], ids=lambda cell: cell.problem)
def test_the_gradient_is_ours_to_the_root_of_the_tolerance(name, cell, tmp_path):
    cell = replace(cell, gradient=name)
    assert decline(cell) is None and missing(cell) is None
    # The difference has an error of sqrt(rtol) by its own step, and as much by the solver's error.
    assert distance(observed(cell, tmp_path), cell, tmp_path) < 30 * cell.rtol**0.5


def test_bare_gradients_are_left_in_grad_and_the_inputs_are_put_back(tmp_path):
    problem, untouched = build(CELL, tmp_path), build(CELL, tmp_path)
    SCIPY.gradient(problem, CELL).complete()
    expected = SCIPY.observe(untouched, CELL)
    assert all(torch.equal(a, b) for a, b in zip(problem.gradient(), expected.gradient, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(problem.inputs, untouched.inputs, strict=True))
    assert expected.counts.f_calls_forward > 100


def test_its_row_has_an_error_and_says_why_there_is_no_other(tmp_path):
    found = {name: value for values in measure_gradient_error(CELL, tmp_path) for name, value in values.items()}
    assert found["error_discrete_reason"] == "finite differences are not the gradient of any steps"
    assert found["loss"] > 0 and found["steps_accepted"] is None


def test_it_is_measured_and_timed_like_any_other(tmp_path):
    cell = replace(CELL, rtol=1e-5, atol=1e-5)
    (row,) = measured(CellMeasurer(MeasurementSettings(60, 1, 0, tmp_path)), [cell])
    assert row.status is Status.OK, row.reason
    assert row.error_true < 0.1 and row.peak_rss_bytes is not None
    assert row.peak_tensor_bytes is None and "scipy does not use torch's allocator" in row.reason
    assert row.backward_s > row.forward_s > 0  # nine solves after the first


def test_with_too_many_numbers_the_cell_is_skipped_with_the_number(tmp_path):
    cell = replace(CELL, problem="mlp", sizes=())
    with pytest.raises(TooCostly) as caught:
        SCIPY.gradient(build(cell, tmp_path), cell)
    assert diagnose(caught.value)[0] is Status.SKIPPED
    (row,) = measured(CellMeasurer(MeasurementSettings(60, 1, 0, tmp_path)), [cell])
    assert row.status is Status.SKIPPED
    assert row.reason == "finite differences take a solve for each of 5344 numbers, more than 100"


def test_the_pieces_of_a_solution_end_at_outputs_and_jumps_and_exclude_their_ends(tmp_path):
    problem = build(JUMPING, tmp_path)
    found = list(pieces(problem))
    assert [piece.end for piece in found] == sorted([*problem.t.tolist()[1:], *problem.jumps])
    assert [piece.end for piece in found if piece.output] == problem.t.tolist()[1:]
    assert all(piece.inside(piece.end) < piece.end and piece.inside(piece.start) == piece.start for piece in found)
    backward = replace(problem, t=problem.t.flip(0))
    turned = list(pieces(backward))
    assert [(piece.end, piece.start) for piece in turned] == [(p.start, p.end) for p in reversed(found)]
    assert all(piece.inside(piece.end) > piece.end for piece in turned)
