"""The command line with made-up measurements."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from symplectic_bench.commands import check as gate
from symplectic_bench.commands import run
from symplectic_bench.commands.app import app
from symplectic_bench.run import sweep
from symplectic_bench.spec.expansion import Vocabulary
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_row

SMALL = """
name = "small"
title = "A small suite"
description = "For tests."
max_cells = 20
budget_s = 100
cell_timeout_s = 5
repeats = 3

[[block]]
problem = [{ name = "mlp", state = 32, width = 64, layers = 2 }]
batch = 128
method = "dopri5"
rtol = [1e-3, 1e-6]
contenders = { ours = ["baseline", "aca", "symplectic"], torchdiffeq = "backprop" }

[[scale.smoke.block]]
problem = [{ name = "mlp" }]
method = "dopri5"
rtol = 1e-3
contenders = { ours = "aca" }
"""

REAL_VOCABULARY = sweep.load_vocabulary
VOCABULARY = Vocabulary({"mlp": {"state": 8, "width": 64, "layers": 2}}, ("dopri5",), lambda cell: None)


@dataclass
class Bench:
    """The command line with made-up measurements, in a folder of its own."""

    folder: Path
    asked: list = field(default_factory=list)  # the cells that were to be measured, one list per suite
    settings: tuple | None = None
    status: dict = field(default_factory=dict)  # cell name -> status to report
    changes: dict = field(default_factory=dict)  # of every row
    interrupt_after: int | None = None
    disturb: Callable[[int], None] = lambda number: None  # called before each row, with its number
    output: str = ""

    def make_measurer(self, plan, cells, checkpoints, cache):
        self.settings = (plan.suite.cell_timeout_s, plan.repeats, plan.suite.warmup, cache)
        return self

    def groups(self, cells):
        self.asked.append(list(cells))
        return [cells]

    def prepare(self, cells, on_progress):
        pass

    def measure(self, group, cores, on_progress):
        for number, cell in enumerate(group):
            if number == self.interrupt_after:
                raise KeyboardInterrupt
            on_progress(f"measuring {cell.name}", cell)
            self.disturb(number)
            yield a_row(cell, status=self.status.get(cell.name, Status.OK), **self.changes)

    def __call__(self, *arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.output = " ".join(result.output.split())
        return result.exit_code

    @property
    def rows(self):
        (path,) = self.folder.glob("results/small/*/rows.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


def at(monkeypatch, environment):
    """Make commands run in this environment."""
    for command in (run, gate):
        monkeypatch.setattr(command, "capture", lambda: environment)
