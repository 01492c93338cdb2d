"""Training: equal numbers despite interruptions, and the rows of its measurements."""

import os
import shutil
import signal
from dataclasses import asdict, replace

import pytest
import torch

from symplectic_bench.data.errors import MissingData
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import processes as process
from symplectic_bench.run.training import runner
from symplectic_bench.run.training.checkpoint import Log
from symplectic_bench.run.training.runner import TrainingMeasurer, TrainingSettings, summarize_log
from symplectic_bench.run.training.turn import CheckpointMissing, evaluate, measure_memory, train
from symplectic_bench.spec.cell import FIRST_ITERATIONS, group_cells
from symplectic_bench.spec.status import Status
from symplectic_bench.tasks import TASKS
from tests.symplectic_bench.sample_cells import make_cell
from tests.symplectic_bench.work import measured

SIZES = {"data": "synthetic-power", "components": 1, "width": 8, "layers": 1, "test_rows": 10}


def cell_of(iterations=4, **changes):
    given = {"problem": "density", "sizes": {**SIZES, "iterations": iterations}, "batch": 5, "rtol": 1e-3, "atol": 1e-3}
    return make_cell(**{**given, **changes})


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    TASKS["density"].prepare(SIZES, folder, None)
    return folder


@pytest.fixture
def settings(tmp_path, cache_dir):
    return TrainingSettings(60, cache_dir, tmp_path / "checkpoints")


def last(values):
    return list(values)[-1]


class TestTurns:
    def test_interrupting_and_resuming_changes_no_bit(self, tmp_path, cache_dir):
        cell = cell_of()
        whole = last(train(cell, cache_dir, tmp_path / "whole.pt", 4))
        for until in (1, 3, 4):
            parts = last(train(cell, cache_dir, tmp_path / "parts.pt", until))
        assert parts["losses"] == whole["losses"] and len(whole["losses"]) == 4
        one, other = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "parts"))
        assert all(torch.equal(one["task"][key], other["task"][key]) for key in one["task"])
        assert parts["starts"] == [0, 1, 3]

    def test_a_turn_that_is_killed_leaves_the_checkpoint_before_it(self, tmp_path, cache_dir):
        cell, file = cell_of(), tmp_path / "run.pt"
        last(train(cell, cache_dir, file, 2))
        before = file.read_bytes()
        turn = train(cell, cache_dir, file, 4)
        next(turn)
        turn.close()
        assert file.read_bytes() == before

    def test_learning_lowers_the_loss(self, tmp_path):
        cell = make_cell(problem="robertson", sizes={"end": 100.0}, batch=1, rtol=1e-3, atol=1e-3)
        TASKS["robertson"].prepare({}, tmp_path, None)
        losses = last(train(cell, tmp_path, tmp_path / "run.pt", 20))["losses"]
        assert losses[-1] < 0.8 * losses[0]

    def test_the_learning_rate_is_not_lowered_twice_by_a_resumed_run(self, tmp_path, cache_dir):
        cell = make_cell(problem="three_body", sizes={"points": 5}, batch=1)
        last(train(cell, cache_dir, tmp_path / "run.pt", 2))
        last(train(cell, cache_dir, tmp_path / "run.pt", 3))
        saved = torch.load(tmp_path / "run.pt", weights_only=True)
        assert saved["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.95**2)

    def test_memory_is_reproducible_and_saved(self, tmp_path, cache_dir):
        cell, file = cell_of(), tmp_path / "run.pt"
        one, other = (measure_memory(cell, cache_dir, file)["memory"] for _ in range(2))
        assert one == other and one["peak_tensor_bytes"] > one["kept_tensor_bytes"] >= 0
        assert last(train(cell, cache_dir, file, 1))["memory"] == one

    def test_measuring_memory_changes_no_loss(self, tmp_path, cache_dir):
        cell = cell_of()
        measure_memory(cell, cache_dir, tmp_path / "measured.pt")
        losses = [last(train(cell, cache_dir, tmp_path / f"{name}.pt", 2))["losses"] for name in ("measured", "other")]
        assert losses[0] == losses[1]

    def test_symplectic_takes_less_memory_than_backpropagation(self, tmp_path, cache_dir):
        peaks = {}
        for gradient in ("symplectic", "backprop"):
            cell = cell_of(gradient=gradient, batch=100, sizes={**SIZES, "width": 64}, rtol=1e-6, atol=1e-6)
            peaks[gradient] = measure_memory(cell, cache_dir, tmp_path / f"{gradient}.pt")["memory"][
                "peak_tensor_bytes"
            ]
        assert peaks["symplectic"] < peaks["backprop"] / 4

    def test_metrics_do_not_depend_on_the_contender(self, tmp_path, cache_dir):
        file = tmp_path / "run.pt"
        last(train(cell_of(), cache_dir, file, 1))
        assert evaluate(cell_of(), cache_dir, file) == evaluate(cell_of(gradient="aca"), cache_dir, file)

    def test_a_checkpoint_that_would_execute_code_is_refused(self, tmp_path, cache_dir):
        class Trap:
            def __reduce__(self):
                return (pytest.fail, ("it ran",))

        torch.save({"task": Trap()}, tmp_path / "run.pt")
        with pytest.raises(Exception, match=r"[Ww]eights"):
            last(train(cell_of(), cache_dir, tmp_path / "run.pt", 1))


class TestRuns:
    def test_every_contender_has_a_row_and_exact_gradients_have_equal_losses(self, settings):
        cells = [cell_of(gradient=gradient) for gradient in ("symplectic", "aca", "backprop", "stages")]
        rows = list(measured(TrainingMeasurer(settings), cells))
        assert {row.status for row in rows} == {Status.OK}
        for row in rows:
            assert row.losses == pytest.approx(rows[0].losses, rel=1e-12)
            assert len(row.f_calls_samples or []) == 4 and row.metrics and row.peak_tensor_bytes and row.total_s
            assert Measurement.from_json(row.to_json()) == row
        assert not list(settings.checkpoints.iterdir())

    def test_cells_that_train_only_briefly_are_not_evaluated(self, settings):
        cells = [cell_of(iterations=3), cell_of(iterations=2, gradient="aca")]
        assert len(group_cells(cells)) == 1 and cells[0].group_id == cells[1].group_id and cells[0].id != cells[1].id
        rows = {row.gradient: row for row in measured(TrainingMeasurer(settings), cells)}
        assert rows["symplectic"].metrics and rows["aca"].metrics is None
        assert rows["aca"].losses == pytest.approx(rows["symplectic"].losses[:2], rel=1e-12)

    def test_a_killed_run_resumes_and_ends_with_the_same_numbers(self, settings, monkeypatch):
        """The second turn's process is killed; another program resumes from the first turn's checkpoint."""
        monkeypatch.setattr(runner, "TURN", 2)
        (undisturbed,) = self.rows(cell_of(), replace(settings, checkpoints=settings.checkpoints / "other"))
        turns = []

        def dying(function, args, limits):
            turns.append(function)
            if len(turns) == 4:  # preparation, memory, the first turn, and now the second
                raise KeyboardInterrupt
            return process_run(function, args, limits)

        process_run = process.run
        monkeypatch.setattr(process, "run", dying)
        with pytest.raises(KeyboardInterrupt):
            self.rows(cell_of(), settings)
        monkeypatch.setattr(process, "run", process_run)
        assert list(settings.checkpoints.iterdir())
        (row,) = self.rows(cell_of(), settings)
        assert (row.losses, row.metrics, row.f_calls_samples) == (
            undisturbed.losses,
            undisturbed.metrics,
            undisturbed.f_calls_samples,
        )
        assert row.peak_tensor_bytes == undisturbed.peak_tensor_bytes

    @pytest.mark.parametrize("call", [3, 4], ids=["between turns", "before the evaluation"])
    def test_a_removed_checkpoint_starts_the_training_over(self, settings, monkeypatch, call):
        """Calls 1 and 2 prepare data and measure memory; each later one is a turn."""
        monkeypatch.setattr(runner, "TURN", 2)
        (undisturbed,) = self.rows(cell_of(), replace(settings, checkpoints=settings.checkpoints / "other"))
        calls = []

        def disturbed(function, args, limits):
            outcome = process_run(function, args, limits)
            calls.append(function)
            if len(calls) == call:
                shutil.rmtree(settings.checkpoints)
            return outcome

        process_run = process.run
        monkeypatch.setattr(process, "run", disturbed)
        (row,) = self.rows(cell_of(), settings)
        assert (row.losses, row.metrics) == (undisturbed.losses, undisturbed.metrics)
        assert row.metrics and row.reason == undisturbed.reason

    def test_a_network_that_was_never_trained_is_not_evaluated(self, tmp_path, cache_dir):
        with pytest.raises(CheckpointMissing, match=r"run\.pt was removed"):
            evaluate(cell_of(), cache_dir, tmp_path / "run.pt")

    def test_a_process_that_dies_is_an_error_that_keeps_its_checkpoint(self, settings, monkeypatch):
        monkeypatch.setattr(runner, "TURN", 2)
        last(train(cell_of(), settings.cache_dir, settings.checkpoints / f"{cell_of().id}.pt", 2))
        monkeypatch.setattr(runner, "train", killed_in_training)
        (row,) = self.rows(cell_of(), settings)
        assert row.status is Status.ERROR and "SIGSEGV" in (row.reason or "") and len(row.losses or []) == 2
        assert list(settings.checkpoints.iterdir())

    def test_missing_data_is_reported_before_anything_is_trained(self, settings):
        cells = [cell_of(), cell_of(sizes={**SIZES, "data": "miniboone", "iterations": 1})]
        with pytest.raises(MissingData, match=r"miniboone/data\.npy"):
            next(measured(TrainingMeasurer(settings), cells))

    def test_an_iteration_that_takes_too_long_ends_the_run(self, settings):
        (row,) = self.rows(cell_of(rtol=1e-12, atol=1e-12), replace(settings, iteration_timeout_s=0.01))
        assert row.status is not Status.OK

    @staticmethod
    def rows(cell, settings):
        return list(measured(TrainingMeasurer(settings), [cell]))


def killed(cell, cache_dir, file):
    os.kill(os.getpid(), signal.SIGSEGV)


def killed_in_training(cell, cache_dir, file, until):
    killed(cell, cache_dir, file)


def test_medians_are_over_the_first_iterations_without_cold_ones():
    n = FIRST_ITERATIONS + 5
    counts = {"f_calls_forward": 7, "f_calls_backward": 3, "steps_accepted": 2, "vjps_forward": None}
    times = [100.0 if i in (0, 10) else 1.0 if i < FIRST_ITERATIONS else 50.0 for i in range(n)]
    log = Log(list(map(float, range(n))), times, times, times, [counts] * n, [0, 10, 20])
    found = summarize_log(log)
    assert found["total_s"] == 1.0 and found["f_calls_forward"] == 7 and "vjps_forward" not in found
    assert found["f_calls_samples"] == [10] * n and found["steps_samples"] == [2] * n
    assert found["cold_iterations"] == [0, 10, 20]
    assert summarize_log(Log(**asdict(Log()))) == {}


class TestOfASuite:
    def test_the_choice_of_evaluated_cells_does_not_depend_on_the_finished_ones(self, settings):
        """The long cell has its row already; the remaining one trains only briefly."""
        long, short = cell_of(iterations=3), cell_of(iterations=2, gradient="aca")
        rows = list(measured(TrainingMeasurer(replace(settings, longest=runner.longest([long, short]))), [short]))
        assert rows[0].status is Status.OK and rows[0].metrics is None

    def test_a_failed_evaluation_loses_no_measurement_of_training(self, settings, monkeypatch):
        monkeypatch.setattr(runner, "evaluate", killed)
        rows = list(measured(TrainingMeasurer(settings), [cell_of()]))
        assert rows[0].status is Status.OK and len(rows[0].losses) == 4 and rows[0].metrics is None
        assert "not evaluated" in rows[0].reason and "SIGSEGV" in rows[0].reason

    def test_auto_can_be_trained_on_a_flow(self, settings):
        rows = list(measured(TrainingMeasurer(settings), [cell_of(gradient="auto-500")]))
        assert rows[0].status is Status.OK and rows[0].peak_tensor_bytes
