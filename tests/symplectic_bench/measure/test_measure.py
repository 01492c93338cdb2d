"""Every measurement against a case whose answer is known."""

import gc
import itertools
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS
from symplectic_adjoint import watch_memory as watch
from symplectic_bench.analysis.verdicts import rounds_needed
from symplectic_bench.contenders.gradient_run import SolveRun, WholeRun
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure import gradient_error, resident_memory, tensor_memory, wall_time, warm_up
from symplectic_bench.measure.floor import Floor, floor_tensor_bytes, measure_floor
from symplectic_bench.measure.tensor_memory import measure_tensor_memory, peaks
from symplectic_bench.measure.wall_time import measure_wall_time
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.problems import build as build_cell
from symplectic_bench.references import compute_reference, reference_file
from symplectic_bench.references.identity import identity
from symplectic_bench.references.store import load, save
from symplectic_bench.run import processes as process
from symplectic_bench.run.processes import Limits
from symplectic_bench.spec.failure import Diverged
from tests.symplectic_bench.sample_cells import FIXED, make_cell

LIMITS = Limits(timeout_s=60)


def block(nbytes):
    return torch.empty(nbytes, dtype=torch.uint8)


class TestAllocator:
    def test_the_peak_of_a_known_pattern_is_found(self):
        def pattern():
            a = block(8000)
            b = block(3000)
            del a
            c = block(2000)
            del b, c

        (traffic,) = watch("cpu", pattern)
        assert (traffic.peak_bytes, traffic.left_bytes, traffic.events) == (11_000, 0, 6)

    def test_phases_are_measured_separately(self):
        kept = []
        first, second, third = watch(
            "cpu", lambda: kept.append(block(500)), lambda: block(7000), lambda: kept.append(block(40))
        )
        assert (first.peak_bytes, first.left_bytes) == (500, 500)
        assert (second.peak_bytes, second.left_bytes) == (7500, 500)
        assert (third.peak_bytes, third.left_bytes) == (540, 540)

    def test_earlier_allocations_do_not_count(self):
        before = [block(9000)]
        released, after = watch("cpu", before.clear, lambda: block(100))
        assert released.peak_bytes == released.left_bytes == 0
        assert after.peak_bytes == 100

    def test_the_backward_pass_is_seen(self):
        x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
        (traffic,) = watch("cpu", lambda: (x * 2).sum().backward())
        assert traffic.left_bytes == 8000  # x.grad

    def test_an_exception_ends_the_watch(self):
        with pytest.raises(ZeroDivisionError):
            watch("cpu", lambda: 1 / 0)
        assert watch("cpu", lambda: block(10))[0].peak_bytes == 10


class TestFloor:
    def test_a_linear_field_keeps_its_state_for_the_gradient_of_its_matrix(self):
        problem = PROBLEMS["linear"].build({"dim": 4}, 5, "float64")
        floor, events = measure_floor(problem)
        assert floor.state_bytes == 5 * 4 * 8 and floor.parameter_bytes == 4 * 4 * 8
        assert floor.graph_bytes == floor.state_bytes
        # f's value, and A's gradient before it is accumulated; that by the state comes before or after it.
        assert floor.vjp_peak_bytes >= floor.state_bytes + floor.parameter_bytes
        assert floor.vjp_peak_bytes <= 2 * floor.state_bytes + floor.parameter_bytes + 64  # and the time
        assert events > 0

    def test_formulas_are_ordered_where_the_graph_is_large(self):
        floor = Floor(state_bytes=10, parameter_bytes=7, graph_bytes=100, vjp_peak_bytes=130)
        at = {gradient: floor_tensor_bytes(floor, gradient, steps=20, stages=6) for gradient in GRADIENTS}
        assert at["continuous"] < at["symplectic"] < at["aca"] < at["baseline"] == at["backprop"]
        assert at["symplectic"] == (20 + 6) * 10 + 130 + 7
        assert at["stages"] == 20 * 6 * 10 + 130 + 7
        assert at["revolve"] == (16 + 1 + 6) * 10 + 130 + 7
        dials = {
            name: floor_tensor_bytes(floor, name, steps=20, stages=6) for name in ("revolve-4", "graphs-8", "disk")
        }
        assert dials["revolve-4"] == (4 + 1 + 6) * 10 + 130 + 7
        assert dials["graphs-8"] == (20 + 8) * 10 + 8 * 100 + 30 + 7
        assert dials["disk"] == (1 + 6) * 10 + 130 + 7
        assert at["mali"] == 7 * 10 + 130 + 7 and at["reversible"] == (8 + 6) * 10 + 130 + 7
        assert at["aca"] == 20 * 10 + 6 * 100 + 30 + 7
        assert at["backprop"] == 10 + 20 * 6 * 100 + 30

    @pytest.mark.parametrize("gradient", GRADIENTS)
    def test_no_gradient_is_below_its_floor(self, gradient, tmp_path):
        cell = make_cell(batch=64, gradient=gradient)
        problem = build_cell(cell, tmp_path)
        floor, _ = measure_floor(problem)
        steps = CONTENDERS["ours"].observe(problem, cell).counts.steps_accepted
        least = floor_tensor_bytes(floor, gradient, steps or 0, METHODS[cell.method].stages)
        peak = peaks(problem, cell)["peak_tensor_bytes"]
        # The continuous adjoint's state is at least three times a state; the others are near their floors.
        assert least <= peak <= (8 if gradient == "continuous" else 1.6) * least


class TestTensorMemory:
    @pytest.mark.parametrize("contender", ["ours", "torchdiffeq"])
    def test_two_processes_give_the_same_number(self, contender, tmp_path):
        cell = make_cell(contender=contender, gradient="backprop")
        counts = CONTENDERS[contender].observe(build_cell(cell, tmp_path), cell).counts
        found = [process.run(measure_tensor_memory, (cell, tmp_path, counts), LIMITS) for _ in range(2)]
        assert found[0].ok, found[0].reason
        assert found[0].values == found[1].values
        assert found[0].values[-1]["peak_tensor_source"] == "exact"

    def test_the_graph_is_kept_between_the_passes(self, tmp_path):
        cell = make_cell(batch=64, gradient="backprop")
        found = peaks(build_cell(cell, tmp_path), cell)
        assert found["kept_tensor_bytes"] <= found["forward_peak_tensor_bytes"] <= found["peak_tensor_bytes"]
        assert found["kept_tensor_bytes"] > 0.9 * found["peak_tensor_bytes"]  # the whole solve's graph

    @pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
    def test_a_fit_agrees_with_a_measurement(self, gradient, tmp_path, monkeypatch):
        # States large enough that the generator's 5 kB do not set the peak.
        cell = make_cell(method="rk4", **FIXED, steps=64, gradient=gradient, batch=256)
        counts = CONTENDERS["ours"].observe(build_cell(cell, tmp_path), cell).counts
        exact = list(measure_tensor_memory(cell, tmp_path, counts))[-1]
        # About the events of 32 steps.
        monkeypatch.setattr(tensor_memory, "EVENT_LIMIT", 12_000)
        fitted = list(measure_tensor_memory(cell, tmp_path, counts))[-1]
        assert exact.pop("peak_tensor_source") == "exact" and fitted.pop("peak_tensor_source") == "fit"
        # Peaks are exactly linear in the steps except for the few at the ends.
        assert fitted == pytest.approx(exact, rel=0.01)

    def test_too_many_adaptive_steps_have_a_reason(self, tmp_path, monkeypatch):
        cell = make_cell()
        counts = CONTENDERS["ours"].observe(build_cell(cell, tmp_path), cell).counts
        monkeypatch.setattr(tensor_memory, "EVENT_LIMIT", 100)
        *_, last = measure_tensor_memory(cell, tmp_path, counts)
        assert list(last) == ["reason"] and "allocator events, more than 100" in last["reason"]


def allocate_and_release(nbytes):
    baseline = resident_memory.reset_high_water_bytes()
    large = bytearray(nbytes)
    del large
    yield resident_memory.high_water_bytes() - baseline
    yield resident_memory.high_water_bytes() - resident_memory.reset_high_water_bytes()


class TestResidentMemory:
    def test_the_high_water_mark_includes_released_memory(self):
        nbytes = 100 * 2**20
        grown, after_reset = process.run(allocate_and_release, (nbytes,), LIMITS).values
        assert grown == pytest.approx(nbytes, rel=0.02)
        assert after_reset == pytest.approx(nbytes, rel=0.02)  # the reset lowered the mark by as much

    def test_kernel_sampler_and_allocator_agree_on_a_large_graph(self, tmp_path):
        cell = make_cell(
            sizes={"width": 256}, batch=256, method="rk4", **FIXED, steps=40, gradient="baseline", dtype="float32"
        )
        counts = CONTENDERS["ours"].observe(build_cell(cell, tmp_path), cell).counts
        tensors = process.run(measure_tensor_memory, (cell, tmp_path, counts), LIMITS).values[-1]
        outcome = process.run(resident_memory.measure_resident_memory, (cell, tmp_path), LIMITS)
        assert outcome.ok, outcome.reason
        (found,) = outcome.values
        assert found["rss_curve_peak_bytes"] == pytest.approx(found["peak_rss_bytes"], rel=0.05)
        # Resident memory includes the gaps that malloc leaves beside aligned blocks: as much as the tensors.
        assert 0.95 < found["peak_rss_bytes"] / tensors["peak_tensor_bytes"] < 4
        assert len(found["rss_curve_s"]) == len(found["rss_curve_bytes"]) <= resident_memory.CURVE_POINTS
        assert max(found["rss_curve_bytes"]) == found["rss_curve_peak_bytes"]

    def test_a_curve_is_thinned_to_its_highest_points(self, tmp_path, monkeypatch):
        def memory_usage(measured, **settings):
            gradient, arguments, keywords = measured
            gradient(*arguments, **keywords)
            now = time.time()
            return [((i * 7919) % 1000, now + 0.001 * i) for i in range(1000)]  # MiB

        monkeypatch.setattr(resident_memory, "memory_usage", memory_usage)
        thin = resident_memory.measure_resident_memory(make_cell(problem="linear", sizes={"dim": 3}), tmp_path)
        assert 32 < len(thin["rss_curve_s"]) == len(thin["rss_curve_bytes"]) <= resident_memory.CURVE_POINTS
        assert max(thin["rss_curve_bytes"]) == thin["rss_curve_peak_bytes"]
        lowest = 999 * 2**20 - thin["rss_curve_peak_bytes"]  # the baseline, of which every point is above
        assert min(thin["rss_curve_bytes"]) + lowest > 500 * 2**20  # of neighbours the highest is kept
        assert thin["rss_curve_s"] == sorted(thin["rss_curve_s"])


class Scripted:
    """A contender that logs its calls and fails at a given one. W has a single pass, K is compiled."""

    def __init__(self, name, log, fails_at=None):
        self.name, self.log, self.fails_at = name, log, fails_at
        self.compiles = name == "K"
        self.steps = []

    def gradient(self, problem, cell):
        def solve():
            self.log.append(self.name)
            self.steps.append(cell.steps)
            if self.log.count(self.name) == self.fails_at:
                raise Diverged(f"{self.name} gave up")
            return problem.y0[None]

        if self.name == "W":
            return WholeRun(solve)
        return SolveRun(problem, solve, gives_up=lambda error: False)


class TestWallTime:
    @pytest.fixture
    def log(self, monkeypatch):
        log = []
        scripted = {name: Scripted(name, log, fails_at=2 if name == "B" else None) for name in "ABCKW"}
        for module in (wall_time, warm_up):
            monkeypatch.setattr(module, "CONTENDERS", scripted)
        monkeypatch.setattr("symplectic_bench.problems.problem.MeanSquare.forward", lambda self, ys: ys.square().sum())
        return log

    def times(self, names, tmp_path, axes=None, **settings):
        cells = [make_cell(contender=name, **(axes or {})) for name in names]
        return list(measure_wall_time(cells, tmp_path, **{"warmup": 1, "repeats": 2, **settings}))

    def test_contenders_take_turns_after_the_warm_up(self, log, tmp_path):
        values = self.times("ACA", tmp_path)
        assert "".join(log) == "ACA" * 3
        samples = [value for value in values if "forward_s" in value]
        assert [value["cell"] for value in samples] == [0, 1, 2] * 2
        assert all(value["forward_s"] > 0 and value["backward_s"] > 0 for value in samples)
        assert sum("f_call_s" in value for value in values) == 2

    def test_a_failed_contender_leaves_the_rotation(self, log, tmp_path):
        values = self.times("ABC", tmp_path)
        assert "".join(log) == "ABC" + "ABC" + "AC"
        assert [v for v in values if "status" in v] == [{"cell": 1, "status": "diverged", "reason": "B gave up"}]

    def test_a_single_pass_has_a_total_time(self, log, tmp_path):
        values = self.times("AW", tmp_path)
        totals = [value for value in values if "total_s" in value]
        assert [value["cell"] for value in totals] == [1, 1] and all(value["total_s"] > 0 for value in totals)

    def test_compilation_is_timed_by_a_separate_first_call(self, log, tmp_path):
        values = self.times("AK", tmp_path)
        assert "".join(log) == "K" + "AK" * 3
        assert values[0] == {"cell": 1, "begins": True}
        assert list(values[1]) == ["cell", "compile_s"] and values[1]["compile_s"] > 0
        assert sum("forward_s" in value for value in values if value.get("cell") == 1) == 2

    def test_the_first_call_is_timed_without_what_else_is_counted(self, log, monkeypatch, tmp_path):
        """The backward pass's processor time and waits are in the same sample."""
        waits = iter(range(0, 10**9, 10**6))
        monkeypatch.setattr(wall_time, "waits", lambda: next(waits))
        start = time.perf_counter()
        values = self.times("AK", tmp_path)
        assert values[1]["compile_s"] < time.perf_counter() - start

    def test_the_warm_up_is_short_except_for_compiled_contenders(self, log, tmp_path):
        self.times("AK", tmp_path, axes={**FIXED, "steps": 1000})
        assert wall_time.CONTENDERS["A"].steps == [100, 1000, 1000]
        assert wall_time.CONTENDERS["K"].steps == [1000] * 4

    def test_divergence_in_a_short_warm_up_is_not_a_failure(self, log, tmp_path):
        values = self.times("AB", tmp_path, axes={**FIXED, "steps": 1000}, warmup=2, repeats=1)
        assert "".join(log) == "AB" * 3  # B fails in its second run, which is short
        assert not [value for value in values if "status" in value]
        assert sum("forward_s" in value for value in values) == 2

    def test_compilation_has_an_empty_cache_that_is_removed(self, monkeypatch):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
        with wall_time.empty_compile_cache():
            folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
            assert folder.is_dir() and list(folder.iterdir()) == []
        assert not folder.exists() and os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"

    def test_each_turn_is_announced(self, log, tmp_path):
        values = self.times("AC", tmp_path, warmup=0, repeats=1)
        assert [value["cell"] for value in values if value.get("begins")] == [0, 1]

    def test_a_slow_cell_alone_is_timed_in_three_rounds(self, log, tmp_path, monkeypatch):
        monkeypatch.setattr(wall_time, "TIME_LIMIT_S", 0.0)
        self.times("A", tmp_path, repeats=50)
        assert len(log) == 1 + wall_time.ROUNDS_ALONE

    def test_a_slow_group_gets_the_rounds_that_its_comparisons_need(self, log, tmp_path, monkeypatch):
        monkeypatch.setattr(wall_time, "TIME_LIMIT_S", 0.0)
        self.times("AC", tmp_path, repeats=50)
        assert wall_time.ROUNDS_IN_TURNS == rounds_needed(102) == rounds_needed(103) - 1
        assert len(log) == 2 * (1 + wall_time.ROUNDS_IN_TURNS)

    def test_garbage_collection_is_off_while_timing(self, log, tmp_path, monkeypatch):
        enabled = []
        seconds = wall_time.seconds
        monkeypatch.setattr(wall_time, "seconds", lambda *args: enabled.append(gc.isenabled()) or seconds(*args))
        self.times("ABW", tmp_path)  # B fails
        assert len(enabled) > 10 and not any(enabled)
        assert gc.isenabled()


class TestGradientError:
    def measure(self, cell, cache_dir):
        return dict(
            itertools.chain.from_iterable(v.items() for v in gradient_error.measure_gradient_error(cell, cache_dir))
        )

    def test_both_errors_come_with_their_references(self, tmp_path):
        cell = make_cell(problem="linear", sizes={"dim": 3})
        compute_reference(cell, tmp_path)
        found = self.measure(cell, tmp_path)
        assert found["error_discrete"] < 1e-12 and found["error_discrete_oracle"] == "50 digits"
        # Near the tolerance, and far above the error bar.
        assert found["error_true_bar"] < 1e-30 < 1e-9 < found["error_true"] < 1e-4
        assert found["error_true_reference"] == "closed form"
        assert found["forward_error"] < 100 and found["forward_disagrees"] is False
        assert {"f_calls_forward", "vjps_backward", "steps_accepted", "loss"} <= set(found)

    def test_gradients_of_the_same_steps_share_a_replay(self, tmp_path):
        cell, replayed, known = make_cell(problem="linear", sizes={"dim": 3}), [], {}

        def counted(observation, name):
            return lambda twin: replayed.append(name) or observation.replay(twin)

        for name in ("symplectic", "continuous", "reversible", "mali", "aca"):
            problem = build_cell(cell, tmp_path)
            observation = CONTENDERS["ours"].observe(problem, replace(cell, gradient=name))
            found = replace(observation, replay=counted(observation, name))
            alone = gradient_error.discrete_error(observation, problem)
            assert gradient_error.discrete_error(found, problem, known) == alone
        # Steps of the method's own are one kind, coupled ones another, and leapfrog's a third.
        assert replayed == ["symplectic", "reversible", "mali"]

    def test_a_group_has_the_errors_of_each_cell_and_a_status_where_one_fails(self, tmp_path):
        names = ["symplectic", "continuous", "reversible", "graphs-x"]
        cells = [make_cell(problem="linear", sizes={"dim": 3}, gradient=name) for name in names]
        values = list(gradient_error.measure_gradient_errors(cells, tmp_path))
        own = [dict(itertools.chain.from_iterable(v.items() for v in values if v["cell"] == i)) for i in range(4)]
        assert own[0]["error_discrete"] < 1e-15 < 1e-9 < own[1]["error_discrete"]
        assert own[2]["error_discrete"] < 1e-14 and {x["error_discrete_oracle"] for x in own[:3]} == {"50 digits"}
        assert own[3]["status"] == "error" and all(x["begins"] and x["ends"] for x in own)

    def test_without_a_reference_there_is_a_reason_and_the_discrete_error(self, tmp_path):
        found = self.measure(make_cell(), tmp_path)
        assert found["error_true_reason"] == "no reference was computed"
        assert found["error_discrete"] < 1e-12 and "forward_error" not in found

    @pytest.mark.parametrize("contender", ["ours", "torchdiffeq"])
    def test_fixed_steps_are_compared_with_the_same_steps(self, contender, tmp_path):
        cell = make_cell(contender=contender, gradient="backprop", method="midpoint", **FIXED, steps=5)
        found = self.measure(cell, tmp_path)
        # Five coarse steps are far from the solution but exactly those of the method.
        assert found["forward_error"] < 10 and found["forward_disagrees"] is False

    def test_a_wrong_forward_solution_is_flagged(self, tmp_path):
        cell = make_cell(problem="linear", sizes={"dim": 3})
        compute_reference(cell, tmp_path)
        reference = load(reference_file(cell, tmp_path))
        moved = replace(reference, final_state=reference.final_state + 1e-3)
        save(moved, identity(build_cell(cell, tmp_path)), reference_file(cell, tmp_path))
        assert self.measure(cell, tmp_path)["forward_disagrees"] is True

    def test_non_finite_numbers_count_as_divergence(self, tmp_path):
        # Euler steps over a stiff spiral, cubed at each stage, overflow float32.
        cell = make_cell(
            problem="spiral", sizes={"end": 50.0}, method="euler", **FIXED, steps=6, gradient="backprop",
            contender="torchdiffeq", dtype="float32",
        )  # fmt: skip
        with pytest.raises(Diverged, match=r"the loss is (nan|inf)"):
            self.measure(cell, tmp_path)


def test_counts_give_the_floor_of_time():
    counts = CONTENDERS["ours"].observe(PROBLEMS["mlp"].build({}, 2, "float64"), make_cell()).counts
    bare, transposed = counts.floor_calls
    assert bare + transposed == counts.f_calls_forward + counts.f_calls_backward
    assert transposed == counts.vjps_backward
    assert asdict(counts)["vjps_forward"] == 0
