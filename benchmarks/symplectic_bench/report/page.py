"""The Markdown page that shows the figures and tables of one suite, or of several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.report.numerals import count_of
from symplectic_bench.report.panels import FigureSpec
from symplectic_bench.report.parts import further_parts, parts
from symplectic_bench.report.typesetting import Table, to_markdown
from symplectic_bench.spec.suite import Suite


@dataclass(frozen=True)
class Chapter:
    """One suite's part of a page. `where` names the machine that measured it."""

    suite: Suite
    where: str
    figures: Sequence[FigureSpec]
    tables: Sequence[Table]


APPENDIX = "appendix.md"
"""The page of the figures' further parts, beside README.md."""


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


def appendix(title: str, chapters: Sequence[Chapter], plots: str) -> str:
    """Return the text of the page of the further parts of all figures, empty if there are none."""
    blocks = [block for one in chapters for part in further_parts(one.figures) for block in _shown(part, plots, 2)]
    opening = "The panels that [the report](README.md) has no room for, in the order of the suite."
    return "\n\n".join([f"# {prose(title)}: further panels", opening, *blocks]) + "\n" if blocks else ""


def _shown(figure: FigureSpec, plots: str, level: int) -> list[str]:
    heading = f"{'#' * level} {figure.title}"
    return [heading, f"![{figure.heading}]({plots}/{figure.name}.svg)", prose(figure.caption)]


def _body(chapter: Chapter, where: str, plots: str, level: int) -> str:
    blocks = [prose(chapter.suite.description.strip()), prose(where)]
    for figure in chapter.figures:
        first, *others = parts(figure)
        blocks += _shown(first, plots, level)
        if others:
            number = sum(len(part.panels) for part in others)
            blocks.append(f"{count_of(number, 'further panel')}: [appendix]({APPENDIX}).")
    tables = [to_markdown(replace(table, where=""), level).rstrip("\n") for table in chapter.tables]
    return "\n\n".join([*blocks, *tables])


def prose(written: str) -> str:
    """Escape text from a suite file: Markdown is allowed, but no HTML and no images from elsewhere."""
    return written.replace("<", "\\<").replace("![", "!\\[")


def write_page(text: str, further: str, folder: Path) -> list[Path]:
    """Write folder/README.md and, if there is a text of further panels, its appendix, and return the paths.

    Without one an earlier appendix is removed.
    """
    page = replace_text(folder / "README.md", text)
    if further:
        return [page, replace_text(folder / APPENDIX, further)]
    (folder / APPENDIX).unlink(missing_ok=True)
    return [page]


def relative(plots: Path, folder: Path) -> str:
    """Return the path of the plots' folder relative to the page's."""
    return Path(os.path.relpath(plots, folder)).as_posix()
