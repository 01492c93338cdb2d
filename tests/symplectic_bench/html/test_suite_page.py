"""What a page says: the verdicts, cells, ratios and reasons of the rows."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.rounds import time_ratio
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.contenders.contender_records import CONTENDER_RECORDS
from symplectic_bench.contenders.gradient_records import GRADIENT_RECORDS, UNKNOWN_MARKER
from symplectic_bench.html.cell_data import cells_data
from symplectic_bench.html.chart_data import SYMBOLS
from symplectic_bench.html.document import document
from symplectic_bench.html.suite_page import suite_page as page_of
from symplectic_bench.report.suite_report import SuiteReport, choose_environment
from symplectic_bench.spec.suite import Scale, load_suite
from tests.clone import ROOT
from tests.symplectic_bench.analysis.test_questions import asked
from tests.symplectic_bench.analysis.test_questions import rows as rows_of_questions
from tests.symplectic_bench.html.pages import ROUNDS, a_report, looked_at
from tests.symplectic_bench.sample_rows import UNMEASURED, a_cell, a_row, group


def suite_page(report):
    return page_of(report, "symplectic-bench report small")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return a_report(tmp_path_factory.mktemp("page"), looked_at(), missing=["0123456789abcdef"])


@pytest.fixture(scope="module")
def page(report):
    return suite_page(report)


def section(page, id):
    return next(one for one in page["sections"] if one["id"] == id)


def test_the_sections_come_in_order_and_verdicts_first(page):
    found = [one["id"] for one in page["sections"]]
    expected = ["verdicts", "memory-time", "work-precision", "tables", "failures", "environment"]
    assert found == expected


def test_every_cell_that_does_not_count_is_listed_with_its_reason(page):
    (table,) = section(page, "failures")["parts"]
    assert {(line[0], line[3]) for line in table["lines"]} == {
        ("timeout", "no result within 60 s"),
        ("oom", "killed"),
        (
            "ok, forward disagrees",
            "the forward solution is 1230 tolerances off the reference: excluded from ratios and fronts",
        ),
        ("diverged", "step size underflow"),
        ("error", "ValueError: a | b"),
        ("skipped", "declined"),
        ("not measured", "no run has reached it yet"),
    }


def test_the_tallies_count_every_cell_by_its_status(page):
    (what, outcomes), *more = section(page, "verdicts")["parts"][0]["lines"]
    assert (what, outcomes[0], more) == ("Cells", ["ok", 54], [])
    assert sorted(outcomes[1:]) == [
        ["diverged", 1],
        ["error", 1],
        ["not measured", 1],
        ["ok, forward disagrees", 1],
        ["oom", 1],
        ["skipped", 1],
        ["timeout", 1],
    ]


def test_a_suite_with_questions_begins_with_their_answers(tmp_path):
    found = rows_of_questions()
    page = suite_page(replace(a_report(tmp_path, found), questions=[asked("time", found)]))
    tallies, glance = section(page, "verdicts")["parts"]
    assert sorted(tallies["lines"][0][1]) == [["behind", 3], ["first", 1], ["level", 1]]
    assert (tallies["lines"][0][0], glance["name"]) == ("Comparisons with peers", "questions")
    assert [part["name"] for part in section(page, "tables")["parts"]] == ["question-1"]


def test_verdicts_are_counted_as_the_table_of_all_gradients_gives_them(page):
    gradients = next(part for part in section(page, "tables")["parts"] if part["name"] == "gradients")
    name, verdict = gradients["headings"].index("gradient"), gradients["headings"].index("against the peer")
    judged = section(page, "verdicts")["parts"][1]
    for line in judged["lines"]:
        own = [one[verdict] for one in gradients["lines"] if one[name] == line[0]]
        assert line[1:5] == [str(own.count(v)) for v in ("first", "level", "behind", "no verdict")]
    assert {line[0]: line[1:4] for line in judged["lines"]}["ours backprop"] == ["6", "0", "0"]


def test_a_pair_has_the_ratio_of_its_rounds_with_the_interval(page, report):
    cells = page["cells"]
    first, second = (
        next(i for i, c in enumerate(cells) if c["name"] == n) for n in ("ours symplectic", "ours backprop")
    )
    low, high = sorted((first, second))
    expected = time_ratio(report.lines[high], report.lines[low])
    assert expected is not None and expected.rounds == ROUNDS
    written = f"{expected.median:.3f} ({expected.low:.3f} to {expected.high:.3f})"
    memory = report.lines[high]["peak_tensor_bytes"] / report.lines[low]["peak_tensor_bytes"]
    assert page["ratios"][low][high] == [written, f"{memory:.3g}"]


def test_cells_that_failed_or_disagree_have_no_ratio(page):
    excluded = {i for i, cell in enumerate(page["cells"]) if not cell["comparable"]}
    assert len(excluded) == 6
    paired = {i for low, others in page["ratios"].items() for i in (low, *others)}
    assert paired == set(range(len(page["cells"]))) - excluded


def test_cells_of_two_machines_or_groups_have_no_ratio():
    here = [*group([("ours", "symplectic")], rtol=1e-3), *group([("ours", "symplectic"), ("ours", "stages")])]
    elsewhere = [replace(row, environment="0" * 12) for row in group([("ours", "aca")])]
    found = cells_data(lines_of(summarize([*here, *elsewhere])))
    names = [cell["name"] for cell in found["cells"]]
    pairs = [{names[a], names[b]} for a, others in found["ratios"].items() for b in others]
    assert pairs == [{"ours symplectic", "ours stages"}]


def test_a_fitted_peak_is_not_compared_with_an_exact_one(tmp_path):
    rows = [a_row(), a_row(a_cell(gradient="stages"), peak_tensor_source="fit")]
    page = suite_page(a_report(tmp_path, rows))
    assert [texts[1] for others in page["ratios"].values() for texts in others.values()] == ["-"]


def test_growth_has_its_fitted_exponents(tmp_path):
    rows = [a_row(a_cell(rtol=None, atol=None, steps=n, method="rk4"), total_s=1e-3 * n) for n in (10, 100, 1000)]
    chart, table = section(suite_page(a_report(tmp_path, rows)), "growth")["parts"]
    assert chart["panels"][0]["series"][0]["power"] == "1.00 ± 0.00"
    assert table["lines"][0][0] == "ours symplectic" and table["lines"][0][-1] == "1.00 ± 0.00"


def test_a_figure_is_whole_and_its_panels_say_what_they_show(tmp_path):
    """Panels are chosen one by one, so the page needs no parts of a figure."""
    rows = [
        a_row(
            a_cell(contender=who, gradient=gradient, rtol=None, atol=None, steps=n, method="rk4", batch=batch), **peak
        )
        for who, gradient, peak in (
            ("ours", "symplectic", {"peak_tensor_bytes": 10}),
            ("torchdiffeq", "backprop", {"peak_tensor_bytes": 20}),
        )
        for n in (10, 100, 1000)
        for batch in (1, 2, 3, 4)
    ]
    chart, _ = section(suite_page(a_report(tmp_path, rows)), "growth")["parts"]
    assert len(chart["panels"]) == 8
    time, memory, *_ = (panel["headline"] for panel in chart["panels"])
    assert (time, memory) == ("", "symplectic at 1000 steps: half of torchdiffeq backprop's memory")


def test_a_suite_without_times_has_no_scatter_and_no_verdicts_on_times(tmp_path):
    rows = [replace(row, **UNMEASURED, forward_samples_s=None, backward_samples_s=None) for row in group()]
    page = suite_page(a_report(tmp_path, rows))
    assert "memory-time" not in [one["id"] for one in page["sections"]]
    assert [part["kind"] for part in section(page, "verdicts")["parts"]] == ["tallies"]


def test_the_page_of_the_largest_committed_suite_is_below_five_megabytes():
    results = ROOT / "results"
    suite = load_suite("accuracy")
    id = choose_environment(results / suite.name, None)
    report = SuiteReport(suite, suite.name, Scale.CPU, id, results, ROOT / "plots")
    text = document(suite.title, suite_page(report))
    assert len(report.lines) > 500
    assert len(text.encode()) < 4_000_000


def test_every_marker_has_a_symbol():
    markers = {record.marker for record in (*GRADIENT_RECORDS.values(), *CONTENDER_RECORDS.values()) if record.marker}
    assert markers | {UNKNOWN_MARKER} <= set(SYMBOLS)
