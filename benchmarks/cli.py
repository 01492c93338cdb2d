"""The command line."""

import typer

from benchmarks.commands.catalogue import catalogue
from benchmarks.commands.compare import compare
from benchmarks.commands.gate import check
from benchmarks.commands.paper import paper
from benchmarks.commands.run import run
from benchmarks.commands.show import plots, report, tables

app = typer.Typer(
    name="symplectic-bench",
    help="Measures every way of computing the gradient of a neural ODE: its error, its time, its memory.",
    epilog="Exit codes: 0 done (skipped, timed-out and diverged cells are results), 1 a failure of ours, "
    "2 bad usage or suite file, 3 regression, 4 nothing ran, 5 baseline missing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (run, paper, tables, plots, report, check, compare):
    app.command()(command)
app.command("list")(catalogue)
