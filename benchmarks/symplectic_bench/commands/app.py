"""The command line."""

import typer

from symplectic_bench.commands.check import check
from symplectic_bench.commands.compare import compare
from symplectic_bench.commands.list import catalogue
from symplectic_bench.commands.paper import paper
from symplectic_bench.commands.portraits import portraits
from symplectic_bench.commands.references import references
from symplectic_bench.commands.run import run
from symplectic_bench.commands.show import plots, report, tables

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
for command in (references, portraits):
    app.command(hidden=True)(command)
