"""list: print the names that a suite may use, or a suite file to start from."""

from collections.abc import Sequence
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each, worst
from symplectic_bench.commands.options import UsersProblemPath
from symplectic_bench.run.console import console
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.suite import load_suite, suite_file, suite_names
from symplectic_bench.spec.users_problem import factory_name, suite_text


def list_everything(
    suite: Annotated[str | None, typer.Argument(metavar="[SUITE]", help="Print the file of this suite.")] = None,
    problem: UsersProblemPath = None,
) -> None:
    """List the suites, the problems with their sizes, the methods, and the contenders with their gradients.

    With SUITE or --problem, print a suite file, to be edited and run: list quick > my_suite.toml.
    """
    if suite is None and problem is None:
        return print_names()
    if suite is not None and problem is not None:
        console.print("list prints one suite file: give SUITE or --problem, not both", style="red")
        raise typer.Exit(Exit.USAGE)
    codes = [
        for_each([suite] if suite is not None else [], print_file),
        for_each([problem] if problem is not None else [], print_file_of_problem),
    ]
    raise typer.Exit(worst(codes))


def print_file(suite: str) -> None:
    """Print a suite's file as it is."""
    typer.echo(suite_file(suite).read_text(encoding="utf-8"), nl=False)


def print_file_of_problem(path: str) -> None:
    """Print a suite file of a user's problem, with all its sizes."""
    # Imported here because it imports torch, which would slow down other commands by seconds.
    from symplectic_bench.run.users_problems import describe

    factory_name(path)
    typer.echo(suite_text(path, describe(path).sizes), nl=False)


def print_names() -> None:
    """Print everything that a suite file may name."""
    # Imported here for the same reason.
    from symplectic_bench.contenders.registry import CONTENDERS

    vocabulary, tasks = load_vocabulary(), load_vocabulary(trains=True)
    loaded = {name: load_suite(name) for name in suite_names()}
    print_section(
        "Suites", [f"{name}: {suite.title} (scales {', '.join(suite.scales)})" for name, suite in loaded.items()]
    )
    for title, families in (("Problems", vocabulary.problems), ("Tasks, for suites that train", tasks.problems)):
        described = [f"{name}: {', '.join(f'{k}={v}' for k, v in sizes.items())}" for name, sizes in families.items()]
        print_section(f"{title}, with default sizes", described)
    print_section("Methods", [", ".join(vocabulary.methods)])
    contenders = [
        f"{name}: {', '.join(contender.gradients)}" + (f" ({missing})" if (missing := contender.missing()) else "")
        for name, contender in CONTENDERS.items()
    ]
    print_section("Contenders, with their gradients", contenders)


def print_section(title: str, lines: Sequence[str]) -> None:
    """Print a bold title and the lines below it."""
    console.print(title, style="bold")
    for line in lines:
        console.print(f"  {line}")
