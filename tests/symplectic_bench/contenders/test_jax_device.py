"""Where JAX computes, and what is said where it has no card."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from symplectic_bench.contenders import diffrax, jax_device
from symplectic_bench.contenders.jax_device import PATIENCE_S, device_of, without_cuda
from symplectic_bench.contenders.registry import decline, missing
from symplectic_bench.run import cells as runner
from symplectic_bench.run.cells import CellMeasurer, MeasurementSettings
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.contenders.against_ours import SPAWNED, installed
from tests.symplectic_bench.sample_cells import make_cell
from tests.symplectic_bench.work import measured

ON_A_CARD = make_cell(contender="diffrax", gradient="backprop", device="cuda")


@pytest.fixture(autouse=True)
def asked_anew():
    without_cuda.cache_clear()
    yield
    without_cuda.cache_clear()


@pytest.fixture
def answer(monkeypatch):
    """Choose how the process ends that tries JAX; it is started with a list of keyword arguments."""
    started = []

    def choose(code=0, stderr="", error=None):
        def run(command, **how):
            started.append(how)
            assert command[0] == sys.executable and "jax.devices('cuda')" in command[2]
            if error is not None:
                raise error
            return subprocess.CompletedProcess(command, code, "", stderr)

        monkeypatch.setattr(jax_device.subprocess, "run", run)
        return started

    return choose


@pytest.fixture
def as_if_installed(monkeypatch):
    monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: object())
    source = " ".join(f"class {name}" for name in diffrax.ADJOINTS.values())
    monkeypatch.setattr("symplectic_bench.contenders.diffrax._source_of_adjoints", lambda: source)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.mark.usefixtures("as_if_installed")
def test_where_jax_has_a_card_its_cells_are_measured(answer):
    started = answer()
    assert decline(ON_A_CARD) is missing(ON_A_CARD) is missing(ON_A_CARD) is None
    (how,) = started  # asked once
    assert how["env"]["JAX_PLATFORMS"] == "cuda,cpu" and how["env"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.usefixtures("as_if_installed")
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ({"code": 1, "stderr": "Traceback:\n  ...\nRuntimeError: Unknown backend cuda\n"}, "Unknown backend cuda"),
        ({"code": -6}, "no message"),
        ({"error": subprocess.TimeoutExpired("python", PATIENCE_S)}, "within 120 s"),
    ],
)
def test_where_jax_has_no_card_its_cells_are_skipped_with_the_reason(answer, ending, reason, tmp_path, monkeypatch):
    answer(**ending)
    monkeypatch.setattr(runner.process, "run", lambda *arguments: pytest.fail("a process was started for it"))
    (row,) = measured(CellMeasurer(MeasurementSettings(30, 1, 0, tmp_path)), [ON_A_CARD])
    assert row.status is Status.SKIPPED and reason in row.reason and row.reason.startswith("JAX ")


@pytest.mark.usefixtures("as_if_installed")
def test_a_cell_on_the_cpu_does_not_ask_for_a_card(answer):
    started = answer(code=1)
    assert missing(make_cell(contender="diffrax", gradient="backprop")) is None
    assert missing(make_cell(device="cuda")) is None and started == []


def test_a_missing_package_comes_first(monkeypatch, answer):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
    started = answer(code=1)
    assert "diffrax is not installed" in str(missing(ON_A_CARD)) and started == []


def test_jax_says_itself_that_it_has_no_card_here():
    installed("diffrax")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert str(without_cuda()).startswith("JAX finds no CUDA device here")


def settings_of_jax(cell):
    """Return what a measuring process sets, and where its arrays are."""
    jax = jax_device.start_jax(cell)
    numbers = jax.device_put(np.ones(1), device_of(cell, jax))
    yield {
        "platforms": jax.config.jax_platforms,
        "precision": jax.config.jax_default_matmul_precision,
        "wide": jax.config.jax_enable_x64,
        "device": str(next(iter(numbers.devices())).platform),
    }


def test_a_measuring_process_starts_jax_on_the_device_of_the_cell():
    installed("diffrax")
    outcome = runner.process.run(settings_of_jax, (make_cell(dtype="float32"),), SPAWNED)
    assert outcome.ok, outcome.reason
    assert outcome.values == [{"platforms": "cpu", "precision": "highest", "wide": False, "device": "cpu"}]


def arrays_of_a_cell_without_its_platform(cell):
    """Put arrays where the cell wants them, as a measuring process whose JAX has only the CPU."""
    jax_device.PLATFORMS = {"cpu": "cpu", "cuda": "cpu"}
    jax = jax_device.start_jax(cell)
    yield {"device": str(jax.device_put(np.ones(1), device_of(cell, jax)).devices())}


def test_a_card_that_jax_lost_after_the_question_is_an_error_and_no_row_of_the_cpu():
    installed("diffrax")
    outcome = runner.process.run(arrays_of_a_cell_without_its_platform, (ON_A_CARD,), SPAWNED)
    assert outcome.status is Status.ERROR and "cuda" in str(outcome.reason) and not outcome.values
