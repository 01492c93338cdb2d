"""The report: one Markdown page of a suite's figures and tables."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import FigureSpec
from benchmarks.suite import Suite
from benchmarks.typesetting import Table, to_markdown


def page(
    suite: Suite, command: str, where: str, figures: Sequence[FigureSpec], tables: Sequence[Table], plots: str
) -> str:
    """The page's text. command makes it again; plots is the folder of the figures, relative to the page's."""
    blocks = [
        f"# {suite.title}",
        suite.description.strip(),
        f"{where} Made from the rows beside it by `{command}`; nothing here is written by hand.",
    ]
    for figure in figures:
        blocks += [f"## {figure.title}", f"![{figure.title}]({plots}/{figure.name}.svg)", figure.caption]
    return (
        "\n\n".join([*blocks, *(to_markdown(replace(table, where=""), level=2).rstrip("\n") for table in tables)])
        + "\n"
    )


def write_page(text: str, folder: Path) -> Path:
    """folder/README.md."""
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def relative(plots: Path, folder: Path) -> str:
    """The plots' folder as seen from the page's."""
    return Path(os.path.relpath(plots, folder)).as_posix()
