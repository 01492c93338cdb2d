"""The folder of pages: an index, a page for each run, and the history of each suite."""

import json
import re
from dataclasses import replace

import pytest

from symplectic_bench.html.site import write_site
from tests.symplectic_bench.html.pages import a_report
from tests.symplectic_bench.sample_rows import an_environment, group

EARLIER, LATER = an_environment(), an_environment(commit="fedcba987654", library_sha256="3" * 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a site of one suite with two runs, the second of which makes more calls in one cell."""
    folder, rows = tmp_path_factory.mktemp("site"), group()
    more = [replace(rows[0], f_calls_backward=999), *rows[1:]]
    reports = [a_report(folder, more, environment=LATER), a_report(folder, rows, environment=EARLIER)]
    write_site([reports], folder / "site")
    return folder / "site"


def data_of(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    assert found is not None
    return json.loads(found[1])


def test_every_run_has_a_page_and_the_newest_is_the_suites(folder):
    names = {path.name for path in (folder / "small").iterdir()}
    assert names == {"index.html", f"{EARLIER.id}.html", f"{LATER.id}.html"}
    assert (folder / "small/index.html").read_text() == (folder / f"small/{LATER.id}.html").read_text()
    assert len((folder / "plotly.min.js").read_text()) > 1_000_000


def test_pages_share_the_library_and_lead_back(folder):
    text = (folder / "small/index.html").read_text()
    assert '<script src="../plotly.min.js"></script>' in text
    assert len(text) < 300_000
    assert data_of(folder / "small/index.html")["back"] == "../index.html"


def test_the_index_lists_the_suites_with_their_runs(folder):
    suites, runs = data_of(folder / "index.html")["sections"]
    (link,) = suites["parts"][0]["links"]
    assert link[:2] == ["small/index.html", "A small suite"] and "2 runs" in link[2]
    assert (folder / link[0]).is_file()
    assert [line[3] for line in runs["parts"][0]["lines"]] == ["9 ok", "9 ok"]


def test_the_history_has_a_line_for_each_metric_and_names_the_step(folder):
    history = data_of(folder / "small/index.html")["sections"][1]
    figure, steps, runs, links = history["parts"]
    series = {one["name"]: one for one in figure["panels"][0]["series"]}
    machine = "time on Some CPU, 2 cores"
    assert set(series) == {"f calls", "VJPs", "steps", "peak of live tensors", machine, "a step"}
    assert series["f calls"]["y"][1] > 1 == series["VJPs"]["y"][1]
    assert series["a step"]["x"] == [1] and series["a step"]["y"] == series["f calls"]["y"][1:]
    ((run, cell, metric, _, now, _),) = steps["lines"]
    assert (metric, now) == ("f_calls_backward", "999")
    assert run.endswith("fedcba987654") and cell.endswith("ours backprop")
    assert [line[2] for line in runs["lines"]] == [LATER.id, EARLIER.id]
    assert [link[0] for link in links["links"]] == [f"{LATER.id}.html", f"{EARLIER.id}.html"]
