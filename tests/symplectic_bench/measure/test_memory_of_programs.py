"""The memory that a contender which captures keeps between gradients, by a stand-in for its solve."""

import pytest
import torch

import symplectic_adjoint
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.measure import tensor_memory
from symplectic_bench.measure.tensor_memory import graph_bytes, measure_tensor_memory
from symplectic_bench.problems import build
from tests.symplectic_bench.sample_cells import FIXED, make_cell

BUFFER = 4096


@pytest.fixture
def solve_with_a_buffer(monkeypatch):
    """Let capture=True keep a buffer for each func from its first solve on."""
    buffers = {}

    def solve(func, *arguments, capture=False, **keywords):
        if capture and id(func) not in buffers:
            buffers[id(func)] = func, torch.empty(BUFFER, dtype=torch.uint8)
        return symplectic_adjoint.solve(func, *arguments, **keywords)

    monkeypatch.setattr("symplectic_bench.contenders.ours.solve", solve)


def memory(cell, tmp_path):
    counts = OURS.observe(build(cell, tmp_path), make_cell(method=cell.method, steps=cell.steps, **FIXED)).counts
    *_, found = measure_tensor_memory(cell, tmp_path, counts)
    return found


@pytest.mark.usefixtures("solve_with_a_buffer")
@pytest.mark.parametrize("source", ["exact", "fit"])
def test_what_a_capture_leaves_is_part_of_every_peak(source, tmp_path, monkeypatch):
    steps = {"method": "rk4", "steps": 64, "batch": 256, **FIXED}
    if source == "fit":
        monkeypatch.setattr(tensor_memory, "EVENT_LIMIT", 12_000)  # about the events of 32 steps
    eager, captured = (memory(make_cell(contender=name, **steps), tmp_path) for name in ("ours", "ours-captured"))
    assert captured.pop("left_tensor_bytes") == BUFFER and "left_tensor_bytes" not in eager
    assert captured.pop("peak_tensor_source") == eager.pop("peak_tensor_source") == source
    assert captured == {name: value + BUFFER for name, value in eager.items()}


def test_what_graphs_reserve_is_counted_without_the_tensors_in_it(monkeypatch):
    segments = [
        {"segment_pool_id": (0, 0), "total_size": 1000, "allocated_size": 10},
        {"segment_pool_id": (0, 1), "total_size": 300, "allocated_size": 100},
        {"segment_pool_id": (0, 2), "total_size": 50, "allocated_size": 50},
    ]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert graph_bytes("cuda") == 200 and graph_bytes("cpu") == 0
