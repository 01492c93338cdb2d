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
    equivalent, outcomes = read_equivalent(), Counter()
    with tempfile.NamedTemporaryFile() as output:
        # Also compiles the sources. Those that a mutant changes are compiled in memory.
        tests = Tests(CONFIG["tests"][folder], output.name)
        sys.dont_write_bytecode = True
        print(f"{folder}: {len(chosen)} mutants, whose tests take {sum(tests.cpu_s.values()):.0f} s", flush=True)
        for mutant in chosen:
            with planted(mutant) as change:
                if change in equivalent:
                    outcome = "equivalent"
                elif (outcome := record.outcome(mutant, change)) not in ("killed", "timeout"):
                    outcome = tests.outcome(mutant)
            record.add(mutant, change, outcome)
            outcomes[outcome] += 1
            if outcome == "survived":
                place = f"{change.file}:{mutant.place[0]}: {mutant.operator}"
                print(f"{place}\n- {change.line}\n+ {change.mutant}\n", flush=True)
    return outcomes


class Tests:
    """Files of tests, each run by itself: those with the name of the changed file first, then the quickest."""

    def __init__(self, arguments: list[str], output: str) -> None:
        self._output = output
        # A file may skip all cases of a gradient that other files run.
        self._options = ["-p", "no:coverage-guard", *(one for one in arguments if one.startswith("-"))]
        self.cpu_s = {file: self._time(file) for file in test_files(arguments)}

    def _time(self, file: str) -> float:
        clean = run_tests([file, *self._options], self._output)
        if clean.outcome != "survived":
            raise SystemExit(f"{file} fails without a mutant:\n{Path(self._output).read_text()}")
        return clean.cpu_s

    def outcome(self, mutant: Mutant) -> str:
        """Return how the first file ends that does not pass, or "survived"."""
        for file in in_order(self.cpu_s, mutant.path):
            ended = run_tests([file, *self._options], self._output, limit_s=10 + 3 * self.cpu_s[file])
            if ended.outcome != "survived":
                return ended.outcome
        return "survived"


def test_files(arguments: list[str]) -> list[str]:
    """Return the files of tests that are named or lie in the folders named."""
    paths = [Path(argument) for argument in arguments if not argument.startswith("-")]
    return [str(file) for path in paths for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])]


def in_order(cpu_s: dict[str, float], path: str) -> list[str]:
    """Return the files of tests in the order in which they are likely to notice a change of this file soon."""
    named = f"test_{Path(path).stem}"
    return sorted(cpu_s, key=lambda file: (not Path(file).stem.startswith(named), cpu_s[file]))


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
