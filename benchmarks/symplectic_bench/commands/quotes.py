"""quotes: compare the marked numbers of documents with the rows that they are from (for maintainers)."""

from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.analysis.quoted import QuotedRows, corrected, find_quotes, wrong_quotes
from symplectic_bench.commands.exit_codes import Exit, for_each
from symplectic_bench.commands.options import RESULTS, Results
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.run.console import console


def quotes(
    documents: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Markdown files.")],
    update: Annotated[bool, typer.Option("--update", help="Replace wrong numbers by those of the rows.")] = False,
    results: Results = RESULTS,
) -> None:
    """Compare every number that a mark ties to rows with those rows. analysis/quoted.py describes the marks."""
    rows = QuotedRows(results)

    def compare(file: Path) -> Exit:
        text = file.read_text(encoding="utf-8")
        if update:
            replace_text(file, text := corrected(text, file.as_posix(), rows))
        wrong = wrong_quotes(find_quotes(text, file.as_posix()), rows)
        for sentence in wrong:
            console.print(sentence, style="red")
        return Exit.REGRESSION if wrong else Exit.DONE

    raise typer.Exit(for_each(documents, compare))
