import pytest

from symplectic_bench.commands import show
from symplectic_bench.run import sweep
from tests.symplectic_bench.command_line import SMALL, VOCABULARY, Bench, at
from tests.symplectic_bench.sample_rows import an_environment


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(sweep, "load_work", bench.load_work)
    monkeypatch.setattr(sweep, "load_vocabulary", lambda trains=False, problem=None: VOCABULARY)
    monkeypatch.setattr(show, "load_vocabulary", lambda trains=False: VOCABULARY)
    at(monkeypatch, an_environment())
    # Drawing takes a second a figure; test_figures does it.
    monkeypatch.setattr(
        "symplectic_bench.report.publication.render", lambda spec, folder: [folder / f"{spec.name}.svg"]
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return bench
