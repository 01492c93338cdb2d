import csv
import io
import math
from dataclasses import replace

import pytest

from symplectic_bench.analysis.claims import evaluate_claims
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.report.numerals import three_digits
from symplectic_bench.report.tables import all_tables, gradients_table
from symplectic_bench.report.typesetting import Section, Table, to_csv, to_latex, to_markdown, write_table
from symplectic_bench.spec.criteria import Target
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import errors_alone, first_look, group

WHERE = "Measured here."


def table(cells=(("a", "1"),), notes=(), heading="", **changes):
    section = Section(heading, tuple(cells), tuple(notes))
    fields = {"name": "t", "title": "T", "caption": "C.", "where": WHERE, "headings": ("name", "n")}
    return Table(**fields | {"sections": (section,), "data": ()} | changes)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (1.5, "1.50"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1230"),
        (9.999, "10.0"),
        (0, "0"),
        (1e-5, "1.00e-05"),
        (2.5e7, "2.50e+07"),
        (math.inf, "inf"),
        (None, "-"),
        (math.nan, "-"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert three_digits(value) == text


def test_every_cell_is_in_the_table_with_its_status():
    found = gradients_table(summarize(first_look()), WHERE)
    statuses = [line[1] for section in found.sections for line in section.lines]
    assert len(statuses) == 60
    assert set(statuses) == {*map(str, Status), "ok, forward disagrees"}


def test_a_failure_says_why_below_its_group():
    rows = [replace(row, status=Status.OOM, reason="killed") if row.gradient == "aca" else row for row in group()]
    assert "- ours aca: killed" in to_markdown(gradients_table(summarize(rows), WHERE))


def test_a_reason_shared_by_several_cells_is_given_once():
    rows = [replace(row, error_discrete_reason="no grid") if row.contender == "torchdiffeq" else row for row in group()]
    text = to_markdown(gradients_table(summarize(rows), WHERE))
    assert "torchdiffeq backprop, torchdiffeq continuous, torchdiffeq continuous-seminorm: no grid" in text
    assert text.count("no grid") == 1


def test_time_is_in_milliseconds_and_memory_in_mebibytes():
    rows = [replace(row, total_s=0.25, peak_tensor_bytes=3 * 2**20, peak_rss_bytes=5 * 2**20) for row in group()]
    found = gradients_table(summarize(rows), WHERE)
    line = dict(zip(found.headings, found.sections[0].lines[0], strict=True))
    assert (line["time, ms"], line["tensors, MiB"], line["RSS, MiB"]) == ("250", "3.00", "5.00")


def test_targets_come_first_if_there_are_any():
    frame, rows = summarize(group()), group()
    target = Target(point=1, name="n", cells={"contender": ["ours"]}, measure="time_over_floor", at_most=2.0)
    targets = evaluate_claims([target.claim], [row.cell for row in rows], lines_of(frame))
    names = [table.name for table in all_tables(frame, WHERE, targets)]
    assert names == ["reached", "targets", "overview", "gradients", "ordering"]
    (line,) = all_tables(frame, WHERE, targets)[0].sections[0].lines
    assert line == ("1", "n", "at most 2", "3.40", "2", "6", "not met")
    assert [table.name for table in all_tables(frame, WHERE)] == ["overview", "gradients", "ordering"]


def test_the_order_of_memory_is_omitted_without_all_three_gradients():
    frame = summarize([row for row in group() if row.gradient != "baseline"])
    assert [table.name for table in all_tables(frame, WHERE)] == ["overview", "gradients"]


def test_captions_name_the_machine():
    for found in all_tables(summarize(group()), WHERE):
        assert WHERE in to_markdown(found)
        assert WHERE in to_latex(found)


def test_markdown_columns_of_numbers_are_right_aligned():
    assert "| :--- | ---: |" in to_markdown(table(cells=[("a", "1e-3"), ("b", "-")]))


def test_markdown_cells_cannot_end_early():
    written = to_markdown(table(cells=[("a | b\nc", "1")], notes=["x | y_z"]))
    assert r"| a \| b c | 1 |" in written
    assert r"- x \| y\_z" in written


def test_latex_escapes_its_specials():
    written = to_latex(table(cells=[("50% of a_b & {c} #1 $x$ ~^\\ <|>", "1")]))
    expected = r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{} $<$$|$$>$ & 1 \\"
    assert expected in written


def test_latex_is_balanced_and_as_wide_as_its_heading():
    for found in all_tables(summarize(first_look()), WHERE):
        written = to_latex(found)
        assert written.count(r"\begin{") == written.count(r"\end{") == 2
        lines = [line for line in written.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {line.count(" & ") for line in lines} == {len(found.headings) - 1}


def test_csv_keeps_every_digit_of_every_cell():
    rows = group()
    read = list(csv.DictReader(io.StringIO(to_csv(gradients_table(summarize(rows), WHERE)))))
    symplectic = next(line for line in read if line["name"] == "ours symplectic")
    row = next(row for row in rows if row.cell.name == "ours symplectic")
    assert len(read) == 9
    assert float(symplectic["total_s"]) == row.total_s
    assert symplectic["peak_tensor_bytes"] == str(row.peak_tensor_bytes)
    assert symplectic["sizes"] == "layers=2 state=32 width=64"
    assert "forward_samples_s" not in symplectic


def test_counts_stay_whole_numbers_beside_a_cell_without_them():
    rows = [replace(row, steps_accepted=None) if row.gradient == "aca" else row for row in group()]
    read = list(csv.DictReader(io.StringIO(to_csv(gradients_table(summarize(rows), WHERE)))))
    assert {line["steps_accepted"] for line in read} == {"", "32"}


def test_a_table_is_three_files(tmp_path):
    written = write_table(table(), tmp_path / "tables")
    assert [path.name for path in written] == ["t.md", "t.csv", "t.tex"]
    assert all(path.read_text().endswith("\n") for path in written[::2])


class TestErrorsAlone:
    def test_true_errors_come_first_with_a_line_a_solve(self):
        tables = all_tables(summarize(errors_alone()), WHERE)
        truth = tables[0]
        assert truth.name == "truth" and [line["rtol"] for line in truth.data] == [1e-2, 1e-4, 1e-6]
        first = dict(zip(truth.headings, truth.sections[0].lines[0], strict=True))
        assert first["reference"] == "Taylor series" and first["its error"] == "1.00e-30"
        assert (first["exact: discrete, worst"], first["exact: true"]) == ("3.00e-16", "2.00e-02")
        assert (first["continuous: true"], first["continuous over exact"]) == ("1.00e-03", "0.0500")
        assert first["torchdiffeq backprop: true"] == "2.00e-02"

    def test_columns_without_values_are_omitted(self):
        tables = {table.name: table for table in all_tables(summarize(errors_alone()), WHERE)}
        assert "time, ms" not in tables["gradients"].headings and "error, true" in tables["gradients"].headings
        assert "time x floor" not in tables["overview"].headings
        widths = {len(line) for section in tables["gradients"].sections for line in section.lines}
        assert widths == {len(tables["gradients"].headings)}

    def test_other_suites_have_no_such_table(self):
        assert "truth" not in [table.name for table in all_tables(summarize(first_look()), WHERE)]
