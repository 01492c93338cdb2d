"""The command line."""

import typer

from symplectic_bench.commands.check import check
from symplectic_bench.commands.compare import compare
from symplectic_bench.commands.exit_codes import describe_exit_codes
from symplectic_bench.commands.list import list_everything
from symplectic_bench.commands.paper import paper
from symplectic_bench.commands.plots import plots
from symplectic_bench.commands.portraits import portraits
from symplectic_bench.commands.references import references
from symplectic_bench.commands.report import report
from symplectic_bench.commands.run import run
from symplectic_bench.commands.tables import tables

app = typer.Typer(
    name="symplectic-bench",
    help="Measure every way of computing the gradient of a neural ODE: error, time and memory.",
    epilog=describe_exit_codes(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (run, paper, tables, plots, report, check, compare):
    app.command()(command)
app.command("list")(list_everything)
for command in (references, portraits):
    app.command(hidden=True)(command)
