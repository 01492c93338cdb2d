"""portraits: draw the solution of each standard problem for docs/problems.md (for maintainers)."""

from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.commands.options import PLOTS
from symplectic_bench.run.console import console
from symplectic_bench.spec.suggestion import suggestion


def portraits(
    names: Annotated[list[str] | None, typer.Argument(metavar="PROBLEM", help="All problems by default.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the figures.", file_okay=False)] = PLOTS / "problems",
) -> None:
    """Draw the solution of each problem."""
    # Imported here because it imports torch and matplotlib, which would slow down other commands by seconds.
    from symplectic_bench.report.portraits import PORTRAITS, write_portrait

    for name in names or ():
        if name not in PORTRAITS:
            console.print(f"no problem {name!r}{suggestion(name, PORTRAITS)}", style="red")
            raise typer.Exit(Exit.USAGE)
    for name in names or PORTRAITS:
        write_portrait(name, folder)
