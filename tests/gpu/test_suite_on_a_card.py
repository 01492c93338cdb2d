"""The suite on a real card: processes forked from the server, what they measure there, and what is counted."""

import pytest
import torch

from symplectic_bench.measure.launches import launches, waits
from symplectic_bench.measure.tensor_memory import reserved_bytes
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.run.inheritance import obstacles
from symplectic_bench.run.processes import Limits, run
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_cells import FIXED, make_cell
from tests.symplectic_bench.work import measured

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="measuring on a card needs a CUDA card")


def what_the_card_computes():
    there = torch.arange(5.0, device="cuda")
    return {"sum": there.sum().item(), "name": torch.cuda.get_device_name()}


def test_a_forked_process_initialises_cuda_itself_even_if_this_one_has():
    torch.ones(1, device="cuda").sum().item()
    assert any("initialised CUDA" in one for one in obstacles())  # in this process, which is not forked
    for _ in range(2):
        outcome = run(what_the_card_computes, (), Limits(60))
        assert outcome.ok, outcome.reason
        assert outcome.values == [{"sum": 10.0, "name": torch.cuda.get_device_name()}]


def test_cells_on_a_card_have_errors_memory_and_times(tmp_path):
    settings = MeasurementSettings(60, repeats=2, warmup=1, cache_dir=tmp_path)
    steps = {"problem": "mlp", "sizes": {"outputs": 1}, "method": "rk38", "steps": 6, "batch": 64, **FIXED}
    names = {"ours": "symplectic", "torchdiffeq": "backprop", "floor": "symplectic"}
    cells = [make_cell(contender=c, gradient=g, device="cuda", **steps) for c, g in names.items()]
    rows = list(measured(CellMeasurer(settings), cells))
    for row in rows:
        assert row.status is Status.OK, row.reason
        assert 0 < row.peak_tensor_bytes <= row.peak_reserved_bytes + 2**21  # what segments of 2 MiB had free before
        assert row.peak_rss_bytes is None and row.total_s > 0 and row.floor_s > 0
    ours, theirs, _ = rows
    assert ours.error_discrete < 1e-12 and theirs.error_discrete < 1e-12  # rounding error of float64
    assert ours.error_true is not None and ours.peak_tensor_bytes < theirs.peak_tensor_bytes


def test_waits_and_launches_are_those_of_the_code():
    x = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()

    def three_kernels_and_a_wait():
        y = ((x * 2) + 1).exp()
        return y[0].item()

    three_kernels_and_a_wait()
    assert waits(three_kernels_and_a_wait) == {"waits": 1}
    found = launches(three_kernels_and_a_wait)
    assert found["launches"] == 3 and found["copies"] == 1 and found["graph_launches"] == 0


def test_the_level_of_reserved_bytes_has_no_cache():
    before = reserved_bytes()
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    assert reserved_bytes() >= before + block.numel()
    del block
    assert reserved_bytes() == before
