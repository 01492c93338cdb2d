"""portraits: draw the solution of each standard problem for docs/problems.md (for maintainers)."""

from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.commands.options import PLOTS


def portraits(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PROBLEM]", help="All problems by default.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the figures.", file_okay=False)] = PLOTS / "problems",
) -> None:
    """Draw the solution of each problem."""
    # Imported here because it imports torch and matplotlib, which would slow down other commands by seconds.
    from symplectic_bench.report.portraits import PORTRAITS, write_portrait

    for name in names or PORTRAITS:
        write_portrait(name, folder)
