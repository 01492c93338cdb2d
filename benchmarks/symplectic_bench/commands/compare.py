"""compare: measure two git revisions side by side."""

from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.analysis.regression import Kind, of_kind
from symplectic_bench.analysis.revisions import Comparison, checked_out, commit_of, compare_revisions
from symplectic_bench.commands.check import show_findings, with_summary
from symplectic_bench.commands.exit_codes import Exit, for_each
from symplectic_bench.commands.options import AtScale, UsersProblemPath
from symplectic_bench.report.findings import to_markdown
from symplectic_bench.report.numerals import count_of, three_digits
from symplectic_bench.report.typesetting import markdown_text
from symplectic_bench.run.console import console
from symplectic_bench.spec.suite import Scale
from symplectic_bench.spec.users_problem import factory_name


def compare(
    before: Annotated[str, typer.Argument(metavar="REV1", help="A git revision: a branch, a tag, HEAD~1.")],
    after: Annotated[str, typer.Argument(metavar="REV2", help="Another revision, compared with the first.")],
    suite: Annotated[
        str | None, typer.Option(help="The suite to measure, quick by default; each revision uses its own.")
    ] = None,
    problem: UsersProblemPath = None,
    scale: AtScale = Scale.SMOKE,
    rounds: Annotated[int, typer.Option(min=1, help="How many times the two alternate, to compare their times.")] = 3,
    markdown: Annotated[Path | None, typer.Option(help="Also write a summary to this file.", dir_okay=False)] = None,
) -> None:
    """Measure two git revisions alternately, each in its own worktree, and report what the second one changes.

    With --problem the revisions may be those of your own project, which are measured with the installed suite. Exits
    with 3 if it costs accuracy, memory or function evaluations. Times never fail the comparison.
    """

    chosen = [] if suite is None and problem is not None else [suite or "quick"]
    name = " ".join([*chosen, *([problem] if problem is not None else [])])

    def measure(revisions: tuple[str, str]) -> Exit:
        commits = [commit_of(Path.cwd(), revision) for revision in revisions]
        if commits[0] == commits[1]:
            names = " and ".join(dict.fromkeys(revisions))
            said = f"{names}: the same commit, {commits[0][:12]}, so they are equal and nothing was measured"
            console.print(said)
            return with_summary(Exit.DONE, markdown, f"{markdown_text(said)}\n")
        if problem is not None:
            factory_name(problem)
            chosen.append(f"--problem={problem}")
        with checked_out(Path.cwd(), revisions, problem) as (sides, folder):
            found = compare_revisions(sides, chosen, scale.value, rounds, folder)
        red = of_kind(found.findings, Kind.REGRESSION)
        show_findings(found.findings, red)
        for gradient, ratio in found.times.items():
            console.print(f"time       {gradient}: {three_digits(ratio)} times that of the first")
        console.print(f"{name}: {count_of(found.cells, 'cell')} compared, {count_of(len(red), 'regression')}")
        if not found.findings:
            console.print("counts, memory and errors are equal")
        return with_summary(Exit.REGRESSION if red else Exit.DONE, markdown, _summary(name, found))

    raise typer.Exit(for_each([(before, after)], measure))


def _summary(suite: str, found: Comparison) -> str:
    first, second = found.sides
    title = f"{suite}: {first.revision} ({first.commit}) and {second.revision} ({second.commit})"
    lines = ["| gradient | time, second over first |", "| :--- | ---: |"]
    lines += [f"| {name} | {three_digits(ratio)} |" for name, ratio in found.times.items()]
    return "\n\n".join([to_markdown(title, found.findings, found.cells, 0, False).strip(), "\n".join(lines)]) + "\n"
