"""Figures of many panels: parts of at most six, the first on the suite's page and the others in its appendix."""

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.figures import work_precision
from symplectic_bench.report.page import Chapter, appendix, page, write_page
from symplectic_bench.report.panels import TIME, FigureSpec, Panel, apart
from symplectic_bench.report.parts import MOST_PANELS, parts
from symplectic_bench.spec.suite import load_suite
from tests.symplectic_bench.sample_rows import group


def a_figure(number, size=1):
    panels = [Panel(str(i), TIME, TIME, ()) for i in range(number * size)]
    blocks = tuple(tuple(panels[i : i + size]) for i in range(0, len(panels), size))
    return FigureSpec("growth", "Growth", "A caption.", "here.", blocks)


def sizes(figure):
    return [len(part.panels) for part in parts(figure)]


def test_panels_are_spread_evenly_over_the_fewest_figures_and_keep_their_order():
    assert [sizes(a_figure(n)) for n in (0, 1, 6, 7, 13, 18)] == [[0], [1], [6], [4, 3], [5, 4, 4], [6, 6, 6]]
    split = parts(a_figure(13))
    assert [part.name for part in split] == ["growth", "growth-2", "growth-3"]
    assert [part.title for part in split] == ["Growth (1 of 3)", "Growth (2 of 3)", "Growth (3 of 3)"]
    assert [panel.title for part in split for panel in part.panels] == [str(i) for i in range(13)]
    assert parts(a_figure(6)) == [a_figure(6)]


def test_a_block_is_never_torn_apart():
    assert sizes(a_figure(4, size=2)) == [4, 4]
    assert sizes(a_figure(3, size=4)) == [4, 4, 4]
    assert sizes(a_figure(2, size=MOST_PANELS + 1)) == [7, 7]


def test_the_panels_of_a_block_are_side_by_side():
    assert [len(row) for row in a_figure(3, size=2).rows] == [2, 2, 2]
    assert [len(row) for row in a_figure(1, size=4).rows] == [2, 2]
    assert [len(row) for row in a_figure(5).rows] == [3, 2]


def test_time_and_memory_of_a_problem_stay_together():
    rows = [
        row for problem in ("linear", "kepler") for rtol in (1e-3, 1e-6) for row in group(problem=problem, rtol=rtol)
    ]
    shown = work_precision(summarize(rows), "here.").rows
    assert [[panel.x.label.partition(",")[0] for panel in row] for row in shown] == [
        ["time", "peak tensor memory (MiB)"]
    ] * 2
    assert [{panel.title for panel in row} for row in shown] == [{"linear"}, {"kepler"}]


def test_the_first_part_is_on_the_page_and_the_others_are_in_its_appendix(tmp_path):
    chapter = Chapter(load_suite("quick"), "here.", [a_figure(13), a_figure(2)], [])
    text, further = page(chapter, "a command", "plots"), appendix("Quick", [chapter], "plots")
    assert "plots/growth.svg" in text and "plots/growth-2.svg" not in text
    assert "8 further panels: [appendix](appendix.md)." in text and text.count("appendix.md") == 1
    assert [name in further for name in ("/growth.svg", "/growth-2.svg", "/growth-3.svg")] == [False, True, True]
    assert [path.name for path in write_page(text, further, tmp_path)] == ["README.md", "appendix.md"]
    assert "(README.md)" in (tmp_path / "appendix.md").read_text()


def test_an_appendix_that_is_needed_no_more_is_removed(tmp_path):
    (tmp_path / "appendix.md").write_text("of an earlier report")
    chapter = Chapter(load_suite("quick"), "here.", [FigureSpec("one", "One", "", "", apart(a_figure(3).panels))], [])
    assert appendix("Quick", [chapter], "plots") == ""
    assert len(write_page("page", appendix("Quick", [chapter], "plots"), tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
