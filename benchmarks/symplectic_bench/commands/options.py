"""Options that several commands share, declared once in the fields of a record."""

import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.run.console import console
from symplectic_bench.run.executors.cluster import ExecutorChoiceError
from symplectic_bench.run.run_options import PLOTS, RESULTS, AtScale, Plots, Results, UsersProblemPath
from symplectic_bench.spec.suite import Scale

Suites = Annotated[
    list[str] | None, typer.Argument(metavar="[SUITE]...", help="Names (see list) or paths of TOML files.")
]
EnvironmentId = Annotated[
    str | None, typer.Option(metavar="ID", help="The environment of the rows; by default the newest.")
]

BASELINE = RESULTS / "baseline"


@dataclass(frozen=True)
class ReportOptions:
    """The options of a command that writes files from stored rows."""

    scale: AtScale = Scale.CPU
    problem: UsersProblemPath = None
    environment: EnvironmentId = None
    mix_machines: Annotated[
        bool, typer.Option("--mix-machines", help="Compare even rows that were measured on different machines.")
    ] = False
    results: Results = RESULTS
    plots: Plots = PLOTS


def sources(suites: Sequence[str] | None, problem: str | None) -> Sequence[str]:
    """Return the suites to work on, or the problem if it is given alone. End the command if there is nothing."""
    if not suites and problem is None:
        console.print("Missing argument SUITE: give a suite (see list), or a problem with --problem", style="red")
        raise typer.Exit(Exit.USAGE)
    return suites or [problem or ""]


def with_options(record: type, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `options` by one command-line option for each field of `record`.

    The command receives the record built from them; fields named in `without` keep their defaults. If the record
    rejects its values, the command ends with Exit.USAGE.
    """
    hints = get_type_hints(record, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(record)
        if field.name not in without
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "options"]

        @functools.wraps(command)
        def with_record(**given: Any) -> None:
            try:
                options = record(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            except ExecutorChoiceError as why:
                console.print(str(why), style="red")
                raise typer.Exit(Exit.USAGE) from why
            command(**given, options=options)

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
        # typer reads the parameters from the signature and their types from the annotations.
        with_record.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
        with_record.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_record

    return decorate
