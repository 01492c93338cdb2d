"""What run says without measuring, in the end, and in a file."""

import json

import pytest

from symplectic_bench.commands.exit_codes import Exit


def planned(bench):
    (suite,) = json.loads((bench.folder / "out.json").read_text())["suites"]
    return suite


def test_a_dry_run_lists_the_cells_and_measures_nothing(bench):
    assert bench("run", "small.toml", "--dry-run", "--json", "out.json") == Exit.DONE
    assert bench.asked == [] and not (bench.folder / "results").exists()
    assert "small: 8 of 8 cells to measure" in bench.output and "no time is known from an earlier run" in bench.output
    assert "rtol 1e-06 atol 1e-08, float64: ours baseline, ours aca, ours symplectic, torchdiffeq b" in bench.output
    assert [cell["to_do"] for cell in planned(bench)["cells"]] == [True] * 8


def test_it_shows_the_time_that_each_group_took_the_last_time(bench, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("symplectic_bench.run.executors.executor.monotonic", lambda: next(clock))
    assert bench("run", "small.toml") == Exit.DONE
    assert [row["measuring_s"] for row in bench.rows] == [1.0] * 8
    assert bench("run", "small.toml", "--dry-run") == Exit.DONE
    assert "0 of 8 cells to measure" in bench.output
    assert bench("run", "small.toml", "--dry-run", "--fresh", "--only", "rtol=1e-6", "--json", "out.json") == Exit.DONE
    assert "4.0 s mlp(layers=2, state=32, width=64) batch 128, dopri5 rtol 1e-06" in bench.output
    assert "4.0 s last time" in bench.output
    assert [(cell["to_do"], cell["last_s"]) for cell in planned(bench)["cells"]] == [(True, 1.0)] * 4


def test_a_dry_run_still_refuses_mistakes(bench):
    assert bench("run", "small.toml", "--dry-run", "--only", "gradient=ACA") == Exit.NOTHING_RAN
    assert bench("run", "smal.toml", "--dry-run") == Exit.USAGE


def test_the_rows_of_a_run_are_written_as_json(bench):
    assert bench("run", "small.toml", "--json", "out.json") == Exit.DONE
    found = planned(bench)
    assert found["suite"] == "small" and found["rows"] == bench.rows


@pytest.mark.parametrize("only", [(), ("--only", "contender=ours")])
def test_a_run_ends_with_three_rows_if_torchdiffeq_is_beside_ours(bench, only):
    assert bench("run", "small.toml", *only) == Exit.DONE
    ending = bench.output.partition("as multiples of torchdiffeq backprop")[2]
    assert bool(ending) == (not only)
    if ending:
        assert "fastest ours baseline time" in ending and "least memory ours symplectic time" in ending
        assert "the default ours symplectic time" in ending and "(2 cells)" in ending
    assert bench.output.endswith("all tables and figures: results/small/README.md")
