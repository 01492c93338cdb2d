"""references: store the standard problems' reference gradients in the package (for maintainers)."""

from collections.abc import Sequence
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import for_each
from symplectic_bench.commands.options import RESULTS
from symplectic_bench.run.console import console


def references(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Suites whose problems are the standard ones.")
    ] = None,
) -> None:
    """Write missing references and remove those of deleted problems. Needs heyoka; takes minutes."""
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.run.known_references import STANDARD, write

    def write_all(names: Sequence[str]) -> None:
        for line in write(names, RESULTS / ".cache"):
            console.print(line)

    raise typer.Exit(for_each([suites or STANDARD], write_all))
