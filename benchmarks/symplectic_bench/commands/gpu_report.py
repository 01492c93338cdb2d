"""gpu-report: time captured solves on a card beside the peers."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from symplectic_bench.commands.exit_codes import for_each
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.rows.environment import Environment, capture
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.reservation import reserved
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import SuiteError


def gpu_report(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[ROW]...", help="Rows, such as small and fix50; by default all.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write every sample and the environment here.", dir_okay=False),
    ] = None,
) -> None:
    """Time one gradient on this machine's CUDA device, captured and eager, beside torchdiffeq, torchode and diffrax.

    Entrants take turns in rounds, so that ratios within a round hold. The bare calls that no gradient can avoid are
    timed too, eager and in a CUDA graph. With memory, waits and launches a row takes about a minute on one H100; the
    file is written after each row.
    """
    raise typer.Exit(for_each([only], lambda names: _measure(names, file)))


def _measure(names: list[str] | None, file: Path | None) -> None:
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.analysis.card_targets import verdicts
    from symplectic_bench.contenders.reasons import has_cuda
    from symplectic_bench.report.card_tables import as_json, measurements_table, targets_table
    from symplectic_bench.report.typesetting import to_markdown
    from symplectic_bench.run.card_rounds import measure_rows
    from symplectic_bench.run.card_rows import ROWS

    known = {row.name: row for row in ROWS}
    for name in names or ():
        if name not in known:
            raise SuiteError(f"no row {name!r}{suggestion(name, known)}")
    if not has_cuda():
        raise SuiteError("there is no CUDA device on this machine, and gpu-report measures one: run it where there is")
    environment = capture()
    chosen = [known[name] for name in dict.fromkeys(names or known)]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as cache, reserved("cuda", 1, on_progress):
        for row, measured in zip(chosen, measure_rows(chosen, Path(cache), on_progress), strict=True):
            rows[row.name] = {one.name: one for one in measured}
            console.print(to_markdown(measurements_table({row.name: rows[row.name]}, where(environment))))
            if file is not None:  # what is measured is kept, even if the next row is interrupted
                report = {"environment": asdict(environment), **as_json(rows, list(verdicts(rows)))}
                replace_text(file, json.dumps(report, indent=1, allow_nan=False) + "\n")
                console.print(f"wrote {file.as_posix()}")
    found = list(verdicts(rows))
    if found:
        console.print(to_markdown(targets_table(found, where(environment))))


def on_progress(line: str, cell: Cell | None = None, waits: bool = False) -> None:
    """Print the current activity."""
    del cell, waits
    console.print(line)


def where(environment: Environment) -> str:
    """Return a sentence that names the card, torch and the commit."""
    card = ", ".join(environment.gpus) or "an unnamed card"
    changed = " with uncommitted changes" if environment.uncommitted_changes else ""
    commit = (environment.commit or "unknown")[:12]
    return f"{card}, torch {environment.torch} ({environment.torch_build}), commit {commit}{changed}."
