"""A sweep of cells that take milliseconds and no torch, as a program that can be killed.

python -m tests.chaos.driver RESULTS JOURNAL CELLS [SCHEDULER]
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from symplectic_bench.rows.environment import capture
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run import sweep
from symplectic_bench.run.executors.cluster import ExecutorChoice, open_executor
from symplectic_bench.run.executors.executor import ProgressCallback
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, Suite
from tests.symplectic_bench.sample_cells import make_cell
from tests.symplectic_bench.sample_rows import a_row

TAKES_S = 0.02


@dataclass(frozen=True)
class Stub:
    """A measurer that forks a sleeping process for every cell. journal has a line for every cell begun."""

    journal: Path

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        return [list(cells[i : i + 2]) for i in range(0, len(cells), 2)]

    def within(self, folder: Path) -> "Stub":
        return self

    def prepare(self, cells: Sequence[Cell], on_progress: ProgressCallback) -> None:
        pass

    def measure(
        self, group: Sequence[Cell], cores: tuple[int, ...], on_progress: ProgressCallback
    ) -> Iterator[Measurement]:
        for cell in group:
            on_progress(cell.name, cell)
            with in_a_process() as pid:
                with self.journal.open("a") as out:
                    out.write(f"{cell.id} {pid}\n")
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code == 0:
                yield a_row(cell)
            else:
                yield Measurement.for_cell(cell, status=Status.ERROR, reason=f"its process ended with {code}")


@contextmanager
def in_a_process() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        time.sleep(TAKES_S)
        os._exit(0)
    yield pid


def plan(cells: int) -> sweep.Plan:
    every = [make_cell(suite="stub", seed=seed) for seed in range(cells)]
    block = {"problem": [{"name": "mlp"}], "method": "dopri5", "rtol": 1e-6, "contenders": {"ours": "symplectic"}}
    fields = {"name": "stub", "title": "Stub", "description": "Of no use.", "max_cells": cells, "budget_s": 1e6}
    suite = Suite.model_validate(fields | {"cell_timeout_s": 60, "block": [block]})
    return sweep.Plan("stub", Scale.CPU, suite, every, every, fresh=False, repeats=1)


def main(results: str, journal: str, cells: str, scheduler: str | None = None) -> None:
    sweep.make_measurer = lambda *_: Stub(Path(journal))
    environment = capture()
    with open_executor(ExecutorChoice(scheduler=scheduler), environment) as executor:
        sweep.sweep(plan(int(cells)), environment, executor, Path(results), Console())


if __name__ == "__main__":
    main(*sys.argv[1:])
