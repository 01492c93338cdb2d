"""What asks for a card on a machine without one ends in one sentence, before anything is measured."""

import pytest
from typer.testing import CliRunner

from symplectic_bench.commands.app import app
from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.run.run_options import RunOptions
from symplectic_bench.run.sweep import NO_DEVICE, make_plan
from symplectic_bench.spec.suite import Scale


@pytest.fixture(autouse=True)
def no_card(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("symplectic_bench.run.processes.run", lambda *_: pytest.fail("nothing may be measured"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        "run quick --scale gpu",
        "run accuracy quick rounding --scale gpu",
        "run quick --device cuda",
        "run quick --scale smoke --device cuda --only gradient=aca",
        "paper --scale gpu",
        "paper table3 --scale gpu",
        "paper table2 table4 --device cuda --scale smoke",
        "paper --scale gpu-first",
        "paper table2 --scale gpu-first",
    ],
)
def test_a_run_on_a_card_that_is_not_there_is_refused_in_one_sentence(arguments, tmp_path):
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == Exit.USAGE
    assert result.output == f"{NO_DEVICE}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["gpu-report", "gpu-report small fix50", "gpu-report --json report.json"])
def test_a_report_on_a_card_that_is_not_there_is_refused_in_one_sentence(arguments, tmp_path):
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == Exit.USAGE
    assert result.output.startswith("there is no CUDA device on this machine") and result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_row_of_the_report_is_bad_usage():
    result = CliRunner().invoke(app, ["gpu-report", "smal"])
    assert result.exit_code == Exit.USAGE and "no row 'smal'; did you mean 'small'?" in result.output


def test_cells_on_the_cpu_of_a_suite_with_two_devices_can_be_measured_alone(tmp_path):
    (tmp_path / "two.toml").write_text(TWO_DEVICES)
    refused = CliRunner().invoke(app, ["run", "two.toml"])
    assert (refused.exit_code, refused.output) == (Exit.USAGE, f"{NO_DEVICE}\n")
    plan = make_plan("two.toml", RunOptions(only=["device=cpu"]))
    assert [cell.device for cell in plan.cells] == ["cpu"]


def test_workers_may_have_a_card_that_this_machine_does_not_have():
    plan = make_plan("quick", RunOptions(scale=Scale.GPU, scheduler="tcp://10.0.0.1:8786"))
    assert {cell.device for cell in plan.cells} == {"cuda"}


TWO_DEVICES = """
title = "Two devices"
description = "For tests."
max_cells = 2
budget_s = 1
cell_timeout_s = 1
[[block]]
problem = [{ name = "linear" }]
device = ["cpu", "cuda"]
method = "dopri5"
rtol = 1e-3
contenders = { ours = "aca" }
"""
