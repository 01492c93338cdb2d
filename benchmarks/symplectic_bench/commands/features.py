"""features: ask each library what it can do, by tiny programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from symplectic_bench.commands.exit_codes import Exit, for_each
from symplectic_bench.commands.options import RESULTS, Results
from symplectic_bench.files.atomic import replace_text
from symplectic_bench.run.console import console
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import SuiteError


def features(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LIBRARY]...", help="Libraries, such as ours and torchdiffeq; by default all."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail if what is committed is not what is found here.")
    ] = False,
    results: Results = RESULTS,
    readme: Annotated[
        Path, typer.Option(help="The page whose table, between its markers, is written too.", dir_okay=False)
    ] = Path("README.md"),
) -> None:
    """Ask each installed library for each feature by a tiny program, and tabulate yes, no, wrong or refused.

    Writes features.json and README.md in the folder features of the results, and the table of README. Libraries that
    are not installed keep their committed answers. All of them take about three minutes, ours and torchdiffeq half a
    minute.
    """
    raise typer.Exit(for_each([only], lambda names: Survey(results / "features", readme).run(names, check)))


@dataclass(frozen=True)
class Survey:
    """The files of a survey."""

    folder: Path
    readme: Path

    def run(self, names: list[str] | None, check: bool) -> Exit:
        """Ask the libraries, and write the files or compare with them."""
        # Imported here because they import torch, which would slow down other commands by seconds.
        from symplectic_bench.features.libraries import LIBRARIES
        from symplectic_bench.features.survey import differences, from_json, survey

        for name in names or ():
            if name not in LIBRARIES:
                raise SuiteError(f"no library {name!r}{suggestion(name, LIBRARIES)}")
        file = self.folder / "features.json"
        committed = from_json(file.read_text(encoding="utf-8")) if file.exists() else {}
        now = survey(dict.fromkeys(names or LIBRARIES), console.print)
        kept = {name: committed[name] for name in committed if name not in now or now[name].missing}
        merged = {**now, **kept}
        ordered = {name: merged[name] for name in LIBRARIES if name in merged}
        if not check:
            for path, text in self.files(ordered).items():
                console.print(f"wrote {replace_text(path, text).as_posix()}")
            return Exit.DONE
        lines = differences(committed, now) or self.outdated(committed)
        for line in lines:
            console.print(line, style="red")
        if lines:
            console.print("run symplectic-bench features, and commit what it writes")
        return Exit.REGRESSION if lines else Exit.DONE

    def files(self, columns: dict) -> dict[Path, str]:
        """Return the text of each file that is written."""
        from symplectic_bench.features.survey import installed_version, to_json
        from symplectic_bench.report.feature_tables import BEGIN, readme_block, to_page, with_block

        texts = {
            self.folder / "features.json": to_json(columns),
            self.folder / "README.md": to_page(columns, installed_version("torch")),
        }
        page = self.readme.read_text(encoding="utf-8") if self.readme.exists() else ""
        if BEGIN in page:
            try:
                texts[self.readme] = with_block(page, readme_block(columns))
            except ValueError as why:
                raise SuiteError(f"{self.readme}: {why}") from why
        return texts

    def outdated(self, committed: dict) -> list[str]:
        """Return a line for each file that is not what the committed answers make."""
        return [
            f"{path.as_posix()} is not what the answers make"
            for path, text in self.files(committed).items()
            if not path.exists() or path.read_text(encoding="utf-8") != text
        ]
