"""Reports on rows made by hand, without the command line."""

import json
import random
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.report.suite_report import SuiteReport
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.rows.store import write_cells, write_environment
from symplectic_bench.spec.suite import Scale, Suite
from tests.symplectic_bench.command_line import SMALL
from tests.symplectic_bench.sample_rows import an_environment, first_look

ROUNDS = 12
"""Enough for an interval."""


def a_report(
    folder: Path,
    rows: Sequence[Measurement],
    missing: Sequence[str] = (),
    environment: Environment | None = None,
    **words: str,
) -> SuiteReport:
    """Return the report of a suite with these rows. missing: ids of cells without one; words: its title and so on."""
    environment = environment or an_environment()
    suite = Suite.model_validate(tomllib.loads(SMALL) | words)
    stored = folder / "results" / suite.name / environment.id
    # Not by the store, which takes paths out of texts: a file of others may say anything.
    replace_text(stored / "rows.jsonl", "".join(f"{json.dumps(row.to_json())}\n" for row in rows))
    write_environment(stored, environment, "cpu")
    write_cells(stored, [*(row.cell_id for row in rows), *missing])
    return SuiteReport(suite, "small.toml", Scale.CPU, environment.id, folder / "results", folder / "plots")


def timed(rows: Sequence[Measurement]) -> list[Measurement]:
    """Return the rows as if their cells had taken ROUNDS turns on a machine with some noise."""
    noise = random.Random(0)

    def times(total_s: float | None) -> list[float] | None:
        return None if total_s is None else [total_s * noise.uniform(0.97, 1.03) for _ in range(ROUNDS)]

    return [
        replace(row, forward_samples_s=times(row.forward_s), backward_samples_s=times(row.backward_s)) for row in rows
    ]


def looked_at() -> list[Measurement]:
    """Return rows of seven groups, in which cells fail in every way, with rounds enough for intervals."""
    return timed(first_look())
