"""The command line."""

import inspect
from collections.abc import Callable
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from symplectic_bench.commands.check import check
from symplectic_bench.commands.compare import compare
from symplectic_bench.commands.exit_codes import describe_exit_codes
from symplectic_bench.commands.features import features
from symplectic_bench.commands.gpu_report import gpu_report
from symplectic_bench.commands.list import list_everything
from symplectic_bench.commands.paper import paper
from symplectic_bench.commands.plots import plots
from symplectic_bench.commands.portraits import portraits
from symplectic_bench.commands.quotes import quotes
from symplectic_bench.commands.references import references
from symplectic_bench.commands.report import report
from symplectic_bench.commands.run import run
from symplectic_bench.commands.site import site
from symplectic_bench.commands.tables import tables
from symplectic_bench.spec.validation import complaint


class Commands(TyperGroup):
    """The commands. What is wrong with an option's value is said in the words of this suite, not of pydantic."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as wrong:
            if isinstance(wrong.__cause__, ValidationError):
                wrong.message = complaint(wrong.__cause__.errors()[0])
            raise


def summary(command: Callable[..., None]) -> str:
    """Return the first paragraph of a command's help, which a list of commands would cut."""
    return inspect.cleandoc(command.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


HELP = """Measure every way of computing the gradient of a neural ODE: error, time and memory.

\b
A first look, in seconds     symplectic-bench run quick --scale smoke
Your own neural ODE          symplectic-bench run --problem package.module:factory
The peers, by question        symplectic-bench run peers
The paper's tables           symplectic-bench paper
A gate in your CI            symplectic-bench check --problem package.module:factory
What can be measured         symplectic-bench list
Options and examples         symplectic-bench COMMAND --help
"""

app = typer.Typer(
    cls=Commands,
    name="symplectic-bench",
    help=HELP,
    epilog=describe_exit_codes(),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (run, paper, tables, plots, report, site, features, gpu_report, check, compare):
    app.command(short_help=summary(command))(command)
app.command("list", short_help=summary(list_everything))(list_everything)
for command in (references, portraits, quotes):
    app.command(hidden=True)(command)
