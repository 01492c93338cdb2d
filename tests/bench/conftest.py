import pytest

from benchmarks import sweep
from benchmarks.commands import show
from tests.bench.command_line import SMALL, VOCABULARY, Bench, at
from tests.bench.rows import an_environment


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(sweep, "load_work", bench.load_work)
    monkeypatch.setattr(sweep, "load_vocabulary", lambda trains=False, problem=None: VOCABULARY)
    monkeypatch.setattr(show, "load_vocabulary", lambda trains=False: VOCABULARY)
    at(monkeypatch, an_environment())
    # Drawing takes a second a figure; test_figures does it.
    monkeypatch.setattr("benchmarks.publication.render", lambda spec, folder: [folder / f"{spec.name}.svg"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return bench
