"""The Markdown page that shows the figures and tables of one suite, or of several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.typesetting import Table, to_markdown
from symplectic_bench.spec.suite import Suite


@dataclass(frozen=True)
class Chapter:
    """One suite's part of a page. `where` names the machine that measured it."""

    suite: Suite
    where: str
    figures: Sequence[FigureSpec]
    tables: Sequence[Table]


def page(chapter: Chapter, command: str, plots: str) -> str:
    """Return the text of a page of one suite.

    `command` makes the page again; `plots` is the folder of the figures relative to the page's.
    """
    made = f"{chapter.where} Made from the rows in this folder by `{command}`; nothing here is written by hand."
    return "\n\n".join([f"# {prose(chapter.suite.title)}", _body(chapter, made, plots, level=2)]) + "\n"


def book(title: str, opening: str, chapters: Sequence[Chapter], plots: str) -> str:
    """Return the text of a page of several suites, one chapter each."""
    parts = [f"## {prose(one.suite.title)}\n\n{_body(one, one.where, plots, level=3)}" for one in chapters]
    return "\n\n".join([f"# {title}", opening, *parts]) + "\n"


def _body(chapter: Chapter, where: str, plots: str, level: int) -> str:
    blocks = [prose(chapter.suite.description.strip()), prose(where)]
    for figure in chapter.figures:
        blocks += [
            f"{'#' * level} {figure.title}",
            f"![{figure.title}]({plots}/{figure.name}.svg)",
            prose(figure.caption),
        ]
    tables = [to_markdown(replace(table, where=""), level).rstrip("\n") for table in chapter.tables]
    return "\n\n".join([*blocks, *tables])


def prose(written: str) -> str:
    """Escape text from a suite file: Markdown is allowed, but no HTML and no images from elsewhere."""
    return written.replace("<", "\\<").replace("![", "!\\[")


def write_page(text: str, folder: Path) -> Path:
    """Write folder/README.md and return its path."""
    return replace_text(folder / "README.md", text)


def relative(plots: Path, folder: Path) -> str:
    """Return the path of the plots' folder relative to the page's."""
    return Path(os.path.relpath(plots, folder)).as_posix()
