"""portraits: draw the solution of each standard problem for docs/problems.md (for maintainers)."""

from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each
from symplectic_bench.commands.options import PLOTS
from symplectic_bench.commands.report_writing import announce
from symplectic_bench.run.console import console
from symplectic_bench.spec.suggestion import suggestion


def portraits(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PROBLEM]...", help="All problems by default.")] = None,
    folder: Annotated[Path, typer.Option(help="Folder of the figures.", file_okay=False)] = PLOTS / "problems",
) -> None:
    """Draw the solution of each problem."""
    # Imported here because it imports torch and matplotlib, which would slow down other commands by seconds.
    from symplectic_bench.report.portraits import PORTRAITS, write_portrait

    unknown = [name for name in names or [] if name not in PORTRAITS]
    if unknown:
        console.print(f"no problem {unknown[0]!r}{suggestion(unknown[0], PORTRAITS)}", style="red")
        raise typer.Exit(Exit.USAGE)
    raise typer.Exit(for_each(names or PORTRAITS, lambda name: announce(write_portrait(name, folder))))
