"""Change the sources one mutant at a time and count how many the tests notice: python -m tests.mutation steps."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from importlib import import_module
from pathlib import Path

from tests.clone import ROOT
from tests.mutation.mutants import Change, Mutant, mutants, planted, sample
from tests.mutation.score import share, table
from tests.mutation.trial import run_tests

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutation"]
FOLDERS = {Path(folder).name: folder for folder in CONFIG["tests"]}
EQUIVALENT = Path(__file__).parent / "equivalent.toml"

# Imported once, for all runs; nothing that a mutant could change.
PRELOADED = ("pandas", "pydantic", "scipy.stats", "torch", "torch._dynamo", "torchdiffeq")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help=f"one of {', '.join(FOLDERS)}; all by default")
    parser.add_argument("--sample", type=int, metavar="N", help="places to mutate in each folder; every mutant if 0")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample (default 0)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="outcomes; those killed there are not tried again")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.folders) - set(FOLDERS):
        parser.error(f"no folder {', '.join(sorted(unknown))}; expected some of {', '.join(FOLDERS)}")
    if not given.here:
        return in_a_copy(sys.argv[1:], given.record)
    outcomes, populations = {}, {}
    record = Record(given.record)
    for name in given.folders or FOLDERS:
        folder = FOLDERS[name]
        population = mutants(Path(folder), CONFIG["exclude_operators"])
        size = CONFIG["sample"] if given.sample is None else given.sample
        chosen = sample(population, size, given.seed) if size else population
        populations[folder] = len(population)
        outcomes[folder] = count(folder, chosen, record)
    print(table(outcomes, populations))
    return 1 if min(map(share, outcomes.values())) < CONFIG["at_least"] else 0


def in_a_copy(arguments: list[str], record: Path | None) -> int:
    """Run this program on a copy of the sources, because it changes them."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".tox", "__pycache__", ".*_cache"))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "benchmarks")])}
        command = [sys.executable, "-m", "tests.mutation", "--here", *arguments]
        if record:
            command += ["--record", str(record.absolute())]
        return subprocess.run(command, cwd=copy, env=env).returncode


def count(folder: str, chosen: list[Mutant], record: "Record") -> Counter[str]:
    """Try the mutants one after another, and print those that survive."""
    for module in PRELOADED:
        import_module(module)
    equivalent = read_equivalent()
    arguments = CONFIG["tests"][folder]
    with tempfile.NamedTemporaryFile() as output:
        # This run also compiles the sources. A mutant's are never written.
        clean = run_tests(arguments, output.name)
        if clean.outcome != "survived":
            raise SystemExit(f"the tests of {folder} fail without a mutant:\n{Path(output.name).read_text()}")
        sys.dont_write_bytecode = True
        print(f"{folder}: {len(chosen)} mutants, whose tests take {clean.cpu_s:.0f} s", flush=True)
        outcomes = Counter()
        for mutant in chosen:
            with planted(mutant) as change:
                if change in equivalent:
                    outcome = "equivalent"
                elif (outcome := record.outcome(mutant, change)) not in ("killed", "timeout"):
                    first = tests_of(mutant.path, arguments)
                    outcome = run_tests([*first, *arguments], output.name, limit_s=10 + 3 * clean.cpu_s).outcome
            record.add(mutant, change, outcome)
            outcomes[outcome] += 1
            if outcome == "survived":
                print(
                    f"{change.file}:{mutant.place[0]}: {mutant.operator}\n- {change.line}\n+ {change.mutant}\n",
                    flush=True,
                )
    return outcomes


def tests_of(path: str, arguments: list[str]) -> list[str]:
    """Return the files among some tests that are named after a source file."""
    folders = [Path(argument) for argument in arguments if not argument.startswith("-")]
    return sorted(str(file) for folder in folders for file in folder.glob(f"test_{Path(path).stem}*.py"))


def read_equivalent() -> set[Change]:
    """Return the changes that no test could notice."""
    entries = tomllib.loads(EQUIVALENT.read_text())["change"]
    return {Change(entry["file"], entry["line"], entry["mutant"]) for entry in entries}


class Record:
    """Outcomes of earlier runs, in a file of JSON lines."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {tuple(key): outcome for *key, outcome in map(json.loads, lines)}

    def outcome(self, mutant: Mutant, change: Change) -> str | None:
        return self._known.get(_key(mutant, change))

    def add(self, mutant: Mutant, change: Change, outcome: str) -> None:
        if self._path and self._known.get(_key(mutant, change)) != outcome:
            self._known[_key(mutant, change)] = outcome
            with self._path.open("a") as file:
                print(json.dumps([*_key(mutant, change), outcome]), file=file)


def _key(mutant: Mutant, change: Change) -> tuple[str | int, ...]:
    return mutant.path, mutant.operator, mutant.occurrence, change.line, change.mutant


if __name__ == "__main__":
    raise SystemExit(main())
