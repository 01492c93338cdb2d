"""Tables written as Markdown and LaTeX for people, and as CSV in full precision for programs."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.summary import Line
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.report.numerals import MISSING


@dataclass(frozen=True)
class Section:
    """Lines of a table under one heading, with notes."""

    heading: str
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Formatted text, and the numbers behind it for the CSV.

    groups: an upper row of headings, each with the number of columns that it spans; empty for a single row of headings.
    """

    name: str
    title: str
    caption: str
    where: str  # a sentence that names the machine and ends the caption
    headings: tuple[str, ...]
    sections: tuple[Section, ...]
    data: tuple[Line, ...]
    groups: tuple[tuple[str, int], ...] = ()


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write folder/<name>.md, .csv and .tex, and return the paths."""
    texts = {".md": to_markdown(table), ".csv": to_csv(table), ".tex": to_latex(table)}
    return [replace_text(folder / f"{table.name}{suffix}", text) for suffix, text in texts.items()]


def to_markdown(table: Table, level: int = 1) -> str:
    """Return the table as Markdown under a heading of this level, its sections one level below."""
    blocks = [f"{'#' * level} {table.title}", markdown_text(f"{table.caption} {table.where}")]
    for section in table.sections:
        if section.heading:
            blocks.append(f"{'#' * (level + 1)} {markdown_text(section.heading)}")
        blocks.append("\n".join(_markdown_lines(table, section)))
        if section.notes:
            blocks.append("\n".join(f"- {markdown_text(note)}" for note in section.notes))
    return "\n\n".join(blocks) + "\n"


def _markdown_lines(table: Table, section: Section) -> list[str]:
    numeric = [all(_is_number(line[i]) for line in section.lines) for i in range(len(table.headings))]
    rule = ["---:" if right else ":---" for right in numeric]
    above = [_spread(table.groups), rule] if table.groups else []
    lines = [*above, table.headings, *([] if above else [rule]), *section.lines]
    return [f"| {' | '.join(map(markdown_text, line))} |" for line in lines]


def _spread(groups: Sequence[tuple[str, int]]) -> list[str]:
    """Return one cell per column, with each heading above its first column: a Markdown cell cannot span columns."""
    return [text for group, span in groups for text in (group, *[""] * (span - 1))]


def _is_number(written: str) -> bool:
    try:
        float(written)
    except ValueError:
        return written == MISSING
    return True


def markdown_text(written: str) -> str:
    """Return the text on one line, escaping characters that would end a cell or begin markup."""
    return "".join(f"\\{c}" if c in "\\|*_<`[]" else c for c in " ".join(written.split()))


def to_csv(table: Table) -> str:
    """Return every line in full precision, with sizes as name=value pairs."""
    keys = list(dict.fromkeys(key for line in table.data for key in line))
    file = io.StringIO()
    writer = csv.DictWriter(file, keys, restval="", lineterminator="\n")
    writer.writeheader()
    for line in table.data:
        writer.writerow({key: _csv_value(value) for key, value in line.items()})
    return file.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, dict):
        return " ".join(f"{name}={size}" for name, size in value.items())
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # a count or bytes: pandas makes a column with a missing value floats
    return value


def to_latex(table: Table) -> str:
    """Return a LaTeX table environment that needs no package."""
    width = len(table.headings)
    body = [
        " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{_latex_text(group)}}}" for group, span in table.groups) + r" \\"
    ]
    body = [*(body if table.groups else []), " & ".join(map(_latex_text, table.headings)) + r" \\ \hline"]
    for section in table.sections:
        if section.heading:
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_latex_text(section.heading)}}}}} \\")
        body += [" & ".join(map(_latex_text, line)) + r" \\" for line in section.lines]
        body += [rf"\multicolumn{{{width}}}{{l}}{{\small {_latex_text(note)}}} \\" for note in section.notes]
    caption = f"{_latex_text(table.title)}. {_latex_text(f'{table.caption} {table.where}')}"
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "`": "",
}


def _latex_text(written: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(written.split()))
