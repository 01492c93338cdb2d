"""Every cell becomes a row, whatever happens to it."""

import json
from dataclasses import asdict, replace

import pytest

from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import cells as runner
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings, Row, time_group
from symplectic_bench.run.processes import CallOutcome
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.work import measured

COUNTS = {
    "f_calls_forward": 10,
    "f_calls_backward": 16,
    "vjps_forward": 0,
    "vjps_backward": 9,
    "steps_accepted": 3,
    "steps_rejected": 0,
}
FLOOR = {"state_bytes": 8, "parameter_bytes": 4, "graph_bytes": 32, "vjp_peak_bytes": 40}


@pytest.fixture
def settings(tmp_path):
    return MeasurementSettings(cell_timeout_s=30, repeats=2, warmup=1, cache_dir=tmp_path)


def collect(cells, settings):
    lines = []
    rows = list(measured(CellMeasurer(settings), cells, lambda line, cell=None, waits=False: lines.append(line)))
    return rows, lines


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Return the rows of four cells that are really measured."""
    settings = MeasurementSettings(30, repeats=2, warmup=1, cache_dir=tmp_path_factory.mktemp("cache"))
    linear = {"problem": "linear", "sizes": {"dim": 3}}
    cells = [
        make_cell(**linear),
        make_cell(**linear, contender="torchdiffeq", gradient="continuous"),
        make_cell(**linear, contender="torchdiffeq", gradient="symplectic"),
        make_cell(**linear, batch=2, **FIXED, method="rk4", steps=4),
    ]
    rows, lines = collect(cells, settings)
    assert [row.cell_id for row in rows] == [cell.id for cell in cells]
    assert any("reference" in line for line in lines) and any("time" in line for line in lines)
    return rows


class TestForReal:
    def test_every_cell_has_a_row_of_strict_json(self, rows):
        for row in rows:
            text = json.dumps(row.to_json(), allow_nan=False)
            assert Measurement.from_json(json.loads(text)) == row

    def test_a_measured_row_is_full(self, rows):
        unmeasured = {"reason", "error_discrete_reason", "error_true_reason", "peak_reserved_bytes"}
        unmeasured |= {"environment", "measuring_s"}  # which the sweep and the executor add
        unmeasured |= {"total_samples_s", "compile_s", "left_tensor_bytes"}
        unmeasured |= {"f_call_captured_s", "vjp_call_captured_s", "floor_captured_s", "floor_captured_reason"}  # CUDA
        unmeasured |= {"losses", "f_calls_samples", "steps_samples", "cold_iterations", "metrics"}  # of training
        for row in (rows[0], rows[1], rows[3]):
            assert row.status is Status.OK, row.reason
            missing = {name for name, value in asdict(row).items() if value is None} - {"rtol", "atol", "steps"}
            assert missing == unmeasured | ({"steps_backward"} if row.gradient != "continuous" else set())
            assert len(row.forward_samples_s or []) == 2
            assert row.total_s > 0 and row.floor_s > 0
            assert row.peak_tensor_bytes >= max(row.forward_peak_tensor_bytes, row.kept_tensor_bytes)

    def test_the_exact_gradient_has_a_rounding_error_and_the_continuous_adjoint_does_not(self, rows):
        ours, theirs, _, fixed = rows
        assert ours.error_discrete < 1e-12 and fixed.error_discrete < 1e-12
        assert theirs.error_discrete > 1e-9  # the continuous adjoint is not the gradient of what was computed
        assert ours.error_true_bar == theirs.error_true_bar < ours.error_true < 1e-4

    def test_the_cells_of_a_group_share_their_bare_calls(self, rows):
        assert rows[0].f_call_s == rows[1].f_call_s != rows[3].f_call_s
        assert rows[0].group_id == rows[1].group_id != rows[3].group_id

    def test_an_impossible_cell_is_skipped_with_its_reason(self, rows):
        assert rows[2].status is Status.SKIPPED and "no gradient 'symplectic'" in rows[2].reason

    def test_data_is_cached_before_it_is_needed(self, settings):
        (row,), lines = collect([make_cell(problem="flow", sizes={"data": "wine", "width": 4})], settings)
        assert row.status is Status.OK, row.reason
        assert lines[0] == "data: wine"

    def test_a_solver_that_gives_up_has_a_row(self, settings):
        cell = make_cell(problem="spiral", sizes={"end": 10.0}, **FIXED, method="euler", steps=8)
        (row,), _ = collect([cell], settings)
        assert row.status is Status.DIVERGED and "not finite" in row.reason
        assert row.total_s is None

    def test_a_failure_of_ours_is_an_error_with_its_reason(self, settings):
        (row,), _ = collect([make_cell(sizes={"depth": 3})], settings)
        assert row.status is Status.ERROR
        assert row.reason == "ValueError: mlp has no size 'depth'; it has state, width, layers, end, outputs"


class TestByScript:
    """With processes whose outcomes the test chooses."""

    @pytest.fixture
    def script(self, monkeypatch):
        """Outcomes by function name; a list gives one outcome per call."""
        outcomes = {
            "cache_table": CallOutcome(),
            "compute_reference": CallOutcome(values=[None]),
            "measure_gradient_error": CallOutcome(values=[{**COUNTS, "loss": 1.0}, {"error_discrete": 1e-16}]),
            "measure_tensor_memory": CallOutcome(values=[FLOOR, {"peak_tensor_bytes": 999}]),
            "measure_resident_memory": CallOutcome(values=[{"peak_rss_bytes": 5}]),
            "measure_wall_time": CallOutcome(
                values=[
                    {"cell": 0, "begins": True},
                    {"cell": 0, "forward_s": 1.0, "backward_s": 3.0},
                    {"f_call_s": 0.1, "vjp_call_s": 0.2},
                    {"cell": 0, "forward_s": 2.0, "backward_s": 3.0},
                    {"f_call_s": 0.1, "vjp_call_s": 0.2},
                ]
            ),
        }

        def run(function, args, limits):
            self.calls.append(function.__name__)
            self.args.append(args)
            self.spawned.append(limits.spawned)
            outcome = outcomes[function.__name__]
            return outcome.pop(0) if isinstance(outcome, list) else outcome

        self.calls, self.args, self.spawned = [], [], []
        monkeypatch.setattr(runner.process, "run", run)
        return outcomes

    def row(self, settings, **changes):
        return collect([make_cell(**changes)], settings)[0][0]

    def test_processes_run_in_order(self, script, settings):
        self.row(settings)
        assert self.calls == [
            "compute_reference",
            "measure_gradient_error",
            "measure_tensor_memory",
            "measure_resident_memory",
            "measure_wall_time",
        ]

    @pytest.fixture
    def card(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    ERRORS = ({**COUNTS, "loss": 1.0}, {"error_discrete": 1e-16})

    def test_errors_and_memory_share_a_process_on_a_card_and_resident_memory_is_not_measured(
        self, script, settings, card
    ):
        values = [*self.ERRORS, {"ends": True}, FLOOR, {"peak_tensor_bytes": 999}]
        script["measure_errors_and_memory"] = CallOutcome(values=values)
        row = self.row(settings, device="cuda")
        assert self.calls == ["compute_reference", "measure_errors_and_memory", "measure_wall_time"]
        assert (row.status, row.error_discrete, row.peak_tensor_bytes) == (Status.OK, 1e-16, 999)
        assert row.floor_tensor_bytes == (3 + 6) * 8 + 40 + 4 and row.peak_rss_bytes is None

    def test_a_process_on_a_card_that_dies_in_the_errors_leaves_the_memory_to_another(self, script, settings, card):
        script["measure_errors_and_memory"] = CallOutcome(Status.OOM, "too large", values=[self.ERRORS[0]])
        row = self.row(settings, device="cuda")
        assert self.calls[1:] == ["measure_errors_and_memory", "measure_tensor_memory", "measure_wall_time"]
        assert (row.status, row.peak_tensor_bytes, row.error_discrete) == (Status.OK, 999, None)
        assert row.error_discrete_reason == "its process ended before (oom): too large"

    def test_a_process_on_a_card_that_dies_in_the_memory_ends_the_cell_and_keeps_the_errors(
        self, script, settings, card
    ):
        values = [*self.ERRORS, {"ends": True}, FLOOR]
        script["measure_errors_and_memory"] = CallOutcome(Status.OOM, "too large", values=values)
        row = self.row(settings, device="cuda")
        assert "measure_wall_time" not in self.calls
        assert (row.status, row.reason, row.error_discrete) == (Status.OOM, "too large", 1e-16)
        assert row.error_discrete_reason is None and row.state_bytes == FLOOR["state_bytes"]

    def test_a_gradient_that_fails_on_a_card_ends_the_cell(self, script, settings, card):
        script["measure_errors_and_memory"] = CallOutcome(Status.DIVERGED, "gave up")
        row = self.row(settings, device="cuda")
        assert self.calls == ["compute_reference", "measure_errors_and_memory"]
        assert (row.status, row.reason) == (Status.DIVERGED, "gave up")

    def test_a_reference_that_is_not_worth_its_time_gives_its_reason(self, script, settings):
        script["compute_reference"] = CallOutcome(values=["no reference was computed: too large"])
        assert self.row(settings).error_true_reason == "no reference was computed: too large"

    def test_times_are_medians_and_the_floor_is_bare_calls(self, script, settings):
        row = self.row(settings)
        assert (row.forward_s, row.backward_s, row.total_s) == (1.5, 3.0, 4.5)
        # 26 f calls, 9 of them with a VJP.
        assert row.floor_s == pytest.approx(17 * 0.1 + 9 * 0.2)
        assert row.floor_tensor_bytes == (3 + 6) * 8 + 40 + 4

    def after_the_rounds(self, script, *values, ending=None):
        rounds = [*script["measure_wall_time"].values, {"timed": True}, *values]
        script["measure_wall_time"] = CallOutcome(*(ending or (Status.OK, None)), values=rounds)

    def test_the_captured_floor_is_the_same_calls_at_their_captured_times(self, script, settings):
        self.after_the_rounds(script, {"f_call_captured_s": 0.01, "vjp_call_captured_s": 0.03})
        row = self.row(settings)
        assert (row.f_call_captured_s, row.vjp_call_captured_s) == (0.01, 0.03)
        assert row.floor_captured_s == pytest.approx(17 * 0.01 + 9 * 0.03)
        assert row.floor_s == pytest.approx(17 * 0.1 + 9 * 0.2) and row.floor_captured_reason is None

    def test_bare_calls_that_cannot_be_captured_cost_no_time_that_was_measured(self, script, settings):
        self.after_the_rounds(script, {"floor_captured_reason": "the bare calls were not captured: RuntimeError"})
        row = self.row(settings)
        assert (row.status, row.total_s, row.floor_captured_s) == (Status.OK, 4.5, None)
        assert row.floor_captured_reason == "the bare calls were not captured: RuntimeError"

    def test_nor_does_a_capture_that_ends_the_process(self, script, settings):
        self.after_the_rounds(script, ending=(Status.ERROR, "killed by signal 6"))
        row = self.row(settings)
        assert (row.status, row.total_s, row.floor_s is None) == (Status.OK, 4.5, False)
        assert row.floor_captured_reason == "capturing the bare calls ended the process (error): killed by signal 6"
        assert self.calls.count("measure_wall_time") == 1

    def test_each_time_is_the_median_of_its_samples(self, script, settings):
        """Of samples whose least, mean, median and sums of medians all differ."""
        samples = [(1.0, 9.0, 0.1, 0.5), (2.0, 3.0, 0.3, 0.2), (8.0, 4.0, 0.2, 0.9)]
        script["measure_wall_time"] = CallOutcome(
            values=[
                value
                for forward, backward, f, vjp in samples
                for value in (
                    {"cell": 0, "forward_s": forward, "backward_s": backward, "backward_cpu_s": f, "backward_waits": 7},
                    {"f_call_s": f, "vjp_call_s": vjp, "f_call_cpu_s": 2 * f, "vjp_call_cpu_s": 2 * vjp},
                )
            ]
        )
        row = self.row(settings)
        assert (row.forward_s, row.backward_s, row.total_s) == (2.0, 4.0, 10.0)
        assert (row.f_call_s, row.vjp_call_s) == (0.2, 0.5)
        assert (row.forward_samples_s, row.backward_samples_s) == ([1.0, 2.0, 8.0], [9.0, 3.0, 4.0])
        assert row.backward_cpu_samples_s == [0.1, 0.3, 0.2] and row.backward_waits == 7
        assert (row.f_call_cpu_samples_s, row.vjp_call_cpu_samples_s) == ([0.2, 0.6, 0.4], [1.0, 0.4, 1.8])

    @pytest.mark.parametrize(
        ("process", "status", "measured", "next_process"),
        [
            ("measure_gradient_error", Status.TIMEOUT, None, "measure_tensor_memory"),
            ("measure_tensor_memory", Status.OOM, 1.0, "measure_resident_memory"),
            ("measure_resident_memory", Status.ERROR, 1.0, "measure_wall_time"),
        ],
    )
    def test_a_failed_process_ends_a_cell_and_keeps_its_measurements(
        self, script, settings, process, status, measured, next_process
    ):
        script[process] = CallOutcome(status, "because")
        row = self.row(settings)
        assert (row.status, row.reason, row.loss) == (status, "because", measured)
        assert next_process not in self.calls

    def test_a_replay_that_fails_costs_only_its_own_error(self, script, settings):
        script["measure_gradient_error"] = CallOutcome(Status.OOM, "too large", values=[{**COUNTS, "loss": 1.0}])
        row = self.row(settings)
        assert row.status is Status.OK and row.total_s == 4.5
        why = "its process ended before (oom): too large"
        assert row.error_discrete is None and row.error_discrete_reason == why
        assert row.error_true is None and row.error_true_reason == why

    def test_measurements_before_a_crash_are_kept(self, script, settings):
        values = [{**COUNTS, "loss": 1.0}, {"error_true": 1e-3, "error_true_bar": 1e-9}]
        script["measure_gradient_error"] = CallOutcome(Status.OOM, "too large", values=values)
        row = self.row(settings)
        assert (row.error_true, row.error_true_reason) == (1e-3, None)

    def test_references_are_computed_again_if_the_cache_is_removed(self, script, settings):
        measurer = CellMeasurer(settings)
        for _ in range(2):
            list(measured(measurer, [make_cell()]))
        assert self.calls.count("compute_reference") == 1
        settings.cache_dir.rmdir()
        list(measured(measurer, [make_cell()]))
        assert self.calls.count("compute_reference") == 2

    def test_a_failed_reference_is_computed_once_per_problem_and_gives_the_reason(self, script, settings):
        script["compute_reference"] = CallOutcome(Status.TIMEOUT, "no result for 30 s")
        rows, _ = collect([make_cell(rtol=rtol) for rtol in (1e-3, 1e-4)], settings)
        assert self.calls.count("compute_reference") == 1
        assert {row.error_true_reason for row in rows} == {"the reference failed (timeout): no result for 30 s"}

    def test_a_reason_for_one_missing_number_leaves_the_cell_ok(self, script, settings):
        script["measure_tensor_memory"] = CallOutcome(values=[FLOOR, {"reason": "too many events"}])
        row = self.row(settings)
        assert (row.status, row.reason, row.peak_tensor_bytes) == (Status.OK, "too many events", None)

    def test_a_gradient_that_cannot_be_timed_in_parts_has_a_total_and_a_first_call(self, script, settings):
        uncounted = dict.fromkeys(COUNTS) | {"steps_accepted": 3}
        script["measure_gradient_error"] = CallOutcome(values=[{**uncounted, "loss": 1.0}])
        values = [
            {"cell": 0, "compile_s": 9.0},
            {"cell": 0, "total_s": 2.0},
            {"cell": 0, "total_s": 4.0},
            {"f_call_s": 0.1, "vjp_call_s": 0.2},
        ]
        script["measure_wall_time"] = CallOutcome(values=values)
        row = self.row(settings)
        assert (row.total_s, row.total_samples_s, row.compile_s) == (3.0, [2.0, 4.0], 9.0)
        assert row.forward_s is None and row.f_call_s == 0.1 and row.floor_s is None

    def test_only_a_process_that_computes_with_jax_is_spawned(self, script, settings):
        script["measure_wall_time"] = CallOutcome(Status.ERROR, "as the script says")
        torch_only = [make_cell(), make_cell(contender="torchdiffeq", gradient="backprop")]
        for cells in (torch_only, [*torch_only, make_cell(contender="diffrax", gradient="backprop")]):
            time_group([Row(cell) for cell in cells], settings)
        assert self.spawned == [False, True]

    @pytest.mark.parametrize(("compared", "rounds"), [(12, [2, 12]), (None, [2, 2])])
    def test_cells_that_are_compared_may_have_more_rounds(self, script, settings, compared, rounds):
        script["measure_wall_time"] = CallOutcome(Status.ERROR, "as the script says")
        for gradients in (["aca"], ["aca", "backprop"]):
            rows = [Row(make_cell(gradient=gradient)) for gradient in gradients]
            time_group(rows, replace(settings, repeats_compared=compared))
        assert [repeats for _, _, _, repeats in self.args] == rounds

    def errors_alone(self, settings, *gradients):
        return collect([make_cell(gradient=g) for g in gradients], replace(settings, measure=()))[0]

    def test_errors_alone_are_measured_in_one_process_per_group(self, script, settings):
        found = [{**COUNTS, "loss": 1.0}, {"error_discrete": 1e-16}]
        values = [{"cell": i, **value} for i in (0, 1) for value in ({"begins": True}, *found, {"ends": True})]
        script["measure_gradient_errors"] = CallOutcome(values=values)
        rows = self.errors_alone(settings, "aca", "symplectic")
        assert self.calls == ["compute_reference", "measure_gradient_errors"]
        assert [(row.status, row.error_discrete, row.total_s) for row in rows] == [(Status.OK, 1e-16, None)] * 2
        assert rows[0].stages == 6 and rows[0].peak_tensor_bytes is None

    def test_errors_alone_survive_a_cell_that_fails_or_kills_the_process(self, script, settings):
        good = [{"begins": True}, {**COUNTS, "loss": 1.0}, {"error_discrete": 1e-16}, {"ends": True}]
        bad = [{"begins": True}, {"status": "diverged", "reason": "gave up"}, {"ends": True}]
        script["measure_gradient_errors"] = [
            CallOutcome(
                Status.OOM,
                "killed",
                [{"cell": i, **v} for i, own in enumerate([bad, good, good[:2]]) for v in own],
            ),
            CallOutcome(values=[{"cell": 0, **value} for value in good]),
        ]
        rows = self.errors_alone(settings, "aca", "symplectic", "baseline", "stages")
        assert [row.status for row in rows] == [Status.DIVERGED, Status.OK, Status.OK, Status.OK]
        assert rows[0].reason == "gave up"
        assert rows[2].error_discrete_reason == "its process ended before (oom): killed" and rows[2].loss == 1.0
        assert rows[1].error_discrete == rows[3].error_discrete == 1e-16

    def test_errors_alone_fail_if_the_process_never_starts(self, script, settings):
        script["measure_gradient_errors"] = CallOutcome(Status.ERROR, "no such module")
        rows = self.errors_alone(settings, "aca", "symplectic")
        assert [(row.status, row.reason) for row in rows] == [(Status.ERROR, "no such module")] * 2

    def timed(self, settings, names):
        rows = [Row(make_cell(gradient=name), measured=dict(COUNTS)) for name in names]
        time_group(rows, settings)
        return rows

    @staticmethod
    def samples(number):
        turns = [{"cell": i, "forward_s": 1.0, "backward_s": 1.0} for i in range(number)]
        return [*turns, {"f_call_s": 0.1, "vjp_call_s": 0.2}]

    def test_a_cell_that_kills_the_process_is_removed_and_the_others_are_timed_again(self, script, settings):
        began = [
            {"cell": 0, "begins": True},
            {"cell": 0, "forward_s": 9.0, "backward_s": 9.0},
            {"cell": 1, "begins": True},
        ]
        script["measure_wall_time"] = [
            CallOutcome(Status.OOM, "killed", values=began),
            CallOutcome(values=self.samples(2)),
        ]
        first, culprit, last = self.timed(settings, ["aca", "backprop", "symplectic"])
        assert (culprit.status, culprit.reason) == (Status.OOM, "killed") and "total_s" not in culprit.measured
        assert first.measured["total_s"] == last.measured["total_s"] == 2.0

    def test_a_cell_that_raises_does_not_cost_the_others_their_times(self, script, settings):
        failed = {"cell": 1, "status": "diverged", "reason": "gave up"}
        script["measure_wall_time"] = CallOutcome(values=[*self.samples(1), failed])
        first, culprit = self.timed(settings, ["aca", "backprop"])
        assert first.measured["total_s"] == 2.0
        assert (culprit.status, culprit.reason) == (Status.DIVERGED, "gave up")

    @pytest.mark.parametrize(
        "values", [[], [{"cell": 0, "begins": True}, {"cell": 0, "forward_s": 1, "backward_s": 1}]]
    )
    def test_all_cells_fail_if_the_process_dies_between_them(self, script, settings, values):
        script["measure_wall_time"] = CallOutcome(Status.ERROR, "the bare calls failed", values=values)
        assert [row.status for row in self.timed(settings, ["aca", "backprop"])] == [Status.ERROR] * 2
