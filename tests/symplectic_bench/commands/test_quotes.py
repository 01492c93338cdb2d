"""quotes: wrong numbers of documents are printed and end in an error, or are replaced."""

from pathlib import Path

from symplectic_bench.commands.exit_codes import Exit
from tests.symplectic_bench.analysis.test_quoted import write_rows

MARK = "<!-- = small@0123456; ours backprop, width=64; total_s -->"


def test_wrong_numbers_are_printed_and_replaced(bench, tmp_path):
    write_rows(tmp_path)
    page, right = tmp_path / "page.md", tmp_path / "right.md"
    page.write_text(f"It takes 3{MARK} s.")
    right.write_text(f"It takes 2{MARK} s.")
    arguments = ("quotes", page.as_posix(), right.as_posix(), "--results", str(tmp_path))
    assert bench(*arguments) == Exit.REGRESSION
    assert "page.md:1: 3 is wrong: the row says 2" in bench.output and "right.md" not in bench.output
    assert bench(*arguments, "--update") == Exit.DONE
    assert page.read_text() == right.read_text() == f"It takes 2{MARK} s."


def test_a_mark_without_rows_and_a_missing_file_end_in_a_sentence(bench):
    Path("page.md").write_text(f"It takes 3{MARK} s.")
    assert bench("quotes", "page.md", "--update") == Exit.USAGE
    assert "no rows there" in bench.output
    assert bench("quotes", "nosuch.md") == Exit.FAILURE
    assert "then run the command again" in bench.output
