"""Every contender on a card against ours on the CPU, and the captured floor. What is not installed is skipped."""

from dataclasses import replace

import pytest
import torch

from symplectic_bench.contenders.registry import CONTENDERS, decline, missing
from symplectic_bench.measure.floor import BareCalls
from symplectic_bench.measure.wall_time import captured_call_times
from symplectic_bench.problems import build
from symplectic_bench.run import processes as process
from symplectic_bench.spec.failure import Diverged
from tests.symplectic_bench.contenders.against_ours import ROUNDING, all_observed, distance, observed
from tests.symplectic_bench.contenders.against_ours import SPAWNED as IN_A_NEW_PROCESS
from tests.symplectic_bench.sample_cells import FIXED, make_cell

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="contenders on a card need a CUDA card")

STEPS = {"method": "euler", "steps": 6, "sizes": {"outputs": 1}, "device": "cuda", **FIXED}
ADAPTIVE = {"sizes": {"outputs": 1}, "device": "cuda", "rtol": 1e-7, "atol": 1e-7}
EQUAL_STEPS = [
    make_cell(contender="ours", gradient="stages", **STEPS),
    make_cell(contender="torchdiffeq", gradient="backprop", **STEPS),
    make_cell(contender="paper", gradient="aca", **STEPS),
    make_cell(contender="torchode", gradient="backprop", **STEPS),
    make_cell(contender="rampde", gradient="aca", **STEPS),
    make_cell(contender="ours-captured", gradient="symplectic", **STEPS),
]
OWN_STEPS = [
    make_cell(contender="torchdiffeq", gradient="backprop", **ADAPTIVE),
    make_cell(contender="torchdiffeq", gradient="continuous", **ADAPTIVE),
    make_cell(contender="torchode", gradient="backprop", **ADAPTIVE),
    make_cell(contender="ours-captured", gradient="symplectic", **ADAPTIVE),
]


def name_of(cell):
    return cell.name


def available(cell):
    assert decline(cell) is None
    if reason := missing(cell):
        pytest.skip(reason)
    return cell


def on_the_cpu(cell):
    return replace(cell, device="cpu")


@pytest.mark.parametrize("cell", EQUAL_STEPS, ids=name_of)
def test_on_equal_steps_its_gradient_is_ours(cell, tmp_path):
    assert distance(observed(available(cell), tmp_path), on_the_cpu(cell), tmp_path) < ROUNDING


@pytest.mark.parametrize("cell", OWN_STEPS, ids=name_of)
def test_on_steps_of_its_own_it_is_ours_to_what_the_tolerance_explains(cell, tmp_path):
    # Some hundred tolerances: the steps are not the same ones.
    assert distance(observed(available(cell), tmp_path), on_the_cpu(cell), tmp_path) < 1e-4


def test_torchdiffeqpack_agrees_to_what_times_in_float32_leave(tmp_path):
    cell = available(make_cell(contender="torchdiffeqpack", gradient="aca", **{**ADAPTIVE, "rtol": 1e-4, "atol": 1e-4}))
    assert distance(observed(cell, tmp_path), on_the_cpu(cell), tmp_path) < 1e-2


@pytest.mark.parametrize("accuracy", [STEPS, ADAPTIVE], ids=["equal steps", "adaptive"])
def test_diffrax_agrees(accuracy, tmp_path):
    cell = available(make_cell(contender="diffrax", gradient="backprop", **accuracy))
    outcome = process.run(all_observed, ([cell], tmp_path), IN_A_NEW_PROCESS)
    assert outcome.ok, outcome.reason
    bound = 1e-4 if cell.steps is None else ROUNDING
    assert distance(outcome.values[0], on_the_cpu(cell), tmp_path) < bound


def test_the_papers_code_gives_up_where_a_stage_is_at_the_end_of_the_step(tmp_path):
    cell = available(make_cell(contender="paper", gradient="symplectic", **ADAPTIVE))
    with pytest.raises(Diverged, match="device"):
        CONTENDERS["paper"].gradient(build(cell, tmp_path), cell).complete()


def test_rampde_in_mixed_precision_agrees_to_a_few_digits(tmp_path):
    cell = available(make_cell(contender="rampde-bf16", gradient="aca", dtype="float32", **STEPS))
    observation = CONTENDERS["rampde-bf16"].observe(build(cell, tmp_path), cell)
    exact = replace(cell, contender="rampde", dtype="float64")
    expected = CONTENDERS["rampde"].observe(build(exact, tmp_path), exact)
    assert {one.dtype for one in observation.gradient} == {torch.float32}
    # bfloat16 has 8 bits, of which some steps and sums lose a few.
    assert observation.loss == pytest.approx(expected.loss, rel=2**-4)


class TestCapturedFloor:
    @pytest.fixture
    def problem(self, tmp_path):
        return build(make_cell(device="cuda", batch=64), tmp_path)

    def test_a_replay_adds_the_gradients_that_the_calls_add(self, problem):
        s = 4
        with BareCalls(problem, 2 * s - 1, s) as calls:
            replay = calls.captured()
            sums = [p.grad for p in problem.parameters]
            for one in sums:
                one.zero_()
            calls()
            expected = [one.clone() for one in sums]
            for one in sums:
                one.zero_()
            replay()
            torch.cuda.synchronize()
            torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)

    def test_its_calls_have_times(self, problem):
        found = captured_call_times(problem)
        assert list(found) == ["f_call_captured_s", "vjp_call_captured_s"] and min(found.values()) > 0, found
