import pytest

from symplectic_bench.commands import report_writing
from symplectic_bench.run import sweep
from tests.symplectic_bench.command_line import SMALL, VOCABULARY, Bench, at
from tests.symplectic_bench.sample_rows import an_environment


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(sweep, "make_measurer", bench.make_measurer)
    monkeypatch.setattr(sweep, "load_vocabulary", lambda trains=False, own=None: VOCABULARY)
    monkeypatch.setattr(report_writing, "load_vocabulary", lambda trains=False, own=None: VOCABULARY)
    at(monkeypatch, an_environment())
    # Drawing takes a second a figure; test_figures does it.
    monkeypatch.setattr(
        "symplectic_bench.report.suite_report.render", lambda spec, folder: [folder / f"{spec.name}.svg"]
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return bench
