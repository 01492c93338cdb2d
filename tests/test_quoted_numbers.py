"""Every number of README and docs that a mark ties to rows is the one in the committed rows."""

from pathlib import Path

import pytest

from symplectic_bench.analysis.quoted import QuotedRows, find_quotes, wrong_quotes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROWS = QuotedRows(ROOT / "results")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_numbers_are_those_of_the_rows(page):
    wrong = wrong_quotes(find_quotes(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()), ROWS)
    assert not wrong, "\n".join(wrong)
