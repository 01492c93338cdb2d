"""What errors and resident memory are measured against: float64, and what was there before."""

import itertools
from dataclasses import replace

import torch

from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.gradient_error import discrete_error, measure_gradient_error
from symplectic_bench.measure.resident_memory import high_water_bytes, measure_resident_memory
from symplectic_bench.oracles.recorded_grid import gradient
from symplectic_bench.problems import build
from symplectic_bench.references import compute_reference
from symplectic_bench.run import processes
from tests.symplectic_bench.sample_cells import make_cell

LIMITS = processes.Limits(timeout_s=120.0)
MIB = 2**20


def resident_beside(cell, cache_dir, ballast):
    """Yield what is measured in a process that already holds some memory, and the kernel's own mark."""
    held = bytearray(ballast)
    yield measure_resident_memory(cell, cache_dir)
    yield {"mark": high_water_bytes(), "held": len(held)}


def test_float32_is_compared_with_a_replay_in_float64(tmp_path):
    """The exact gradient of a float32 solve's steps, in float64, has no error; the float32 one has rounding errors."""
    cell = make_cell(dtype="float32", rtol=1e-4, atol=1e-4)
    problem = build(cell, tmp_path)
    observation = CONTENDERS["ours"].observe(problem, cell)
    twin = problem.to(torch.float64)
    exact = gradient(twin, observation.replay(twin))
    # To rounding in float64, five hundred million times finer than in float32.
    assert discrete_error(replace(observation, gradient=exact), problem)["error_discrete"] < 1e-14
    assert 1e-9 < discrete_error(observation, problem)["error_discrete"] < 1e-5


def test_times_that_move_are_part_of_both_errors(tmp_path):
    """A fault in the gradient of the times alone is seen by the replay and by the reference."""
    cell = make_cell(problem="regularized", sizes={}, rtol=1e-6, atol=1e-8)
    compute_reference(cell, tmp_path)
    found = dict(itertools.chain.from_iterable(v.items() for v in measure_gradient_error(cell, tmp_path)))
    assert found["error_discrete"] < 1e-13 < 1e-9 < found["error_true"] < 1e-4
    problem = build(cell, tmp_path)
    observation = CONTENDERS["ours"].observe(problem, cell)
    *others, by_times = observation.gradient
    assert by_times.shape == problem.t.shape and by_times[1:].abs().min() > 0
    wrong = replace(observation, gradient=[*others, by_times.roll(1)])
    assert discrete_error(wrong, problem)["error_discrete"] > 1e-3


def test_what_was_resident_before_does_not_count(tmp_path):
    outcome = processes.run(resident_beside, (make_cell(), tmp_path, 300 * MIB), LIMITS)
    assert outcome.ok, outcome.reason
    found, around = outcome.values
    assert around["mark"] > around["held"] >= 300 * MIB
    # A gradient of a small network: torch's own caches, and no part of what the process held.
    assert found["peak_rss_bytes"] < 100 * MIB and found["rss_curve_peak_bytes"] < 100 * MIB
