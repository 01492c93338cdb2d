"""Change the sources one mutant at a time and count how many the tests notice: python -m tests.mutation steps."""

import argparse
import gc
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
from tests.mutation.equivalent import Equivalent
from tests.mutation.files import Files
from tests.mutation.mutants import Mutant, mutants, planted, sample
from tests.mutation.record import Record
from tests.mutation.score import share, table

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutation"]
FOLDERS = {Path(folder).name: folder for folder in CONFIG["tests"]}

# Imported once, for all runs; nothing that a mutant could change.
PRELOADED = """
filelock hypothesis.strategies matplotlib.pyplot mpmath pandas pyarrow pydantic rich.table scipy.stats
torch torch._dynamo torchdiffeq typer
"""


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


def count(folder: str, chosen: list[Mutant], record: Record) -> Counter[str]:
    """Try the mutants one after another, and print those that survive."""
    for module in PRELOADED.split():
        import_module(module)
    gc.freeze()  # pytest collects garbage several times, and need not look there
    equivalent, outcomes = Equivalent(), Counter()
    with tempfile.NamedTemporaryFile() as output:
        # Also compiles the sources. Those that a mutant changes are compiled in memory.
        files = Files(CONFIG["tests"][folder], output.name)
        sys.dont_write_bytecode = True
        print(f"{folder}: {len(chosen)} mutants, whose tests take {sum(files.cpu_s.values()):.0f} s", flush=True)
        for mutant in chosen:
            with planted(mutant) as change:
                if not change.is_python:
                    outcome = "invalid"
                elif change in equivalent:
                    outcome = "equivalent"
                elif (outcome := record.outcome(mutant, change)) not in ("killed", "timeout"):
                    outcome = files.outcome(mutant.path)
            record.add(mutant, change, outcome)
            outcomes[outcome] += 1
            if outcome == "survived":
                place = f"{change.file}:{mutant.place[0]}: {mutant.operator}"
                print(f"{place}\n- {change.line}\n+ {change.mutant}\n", flush=True)
    return outcomes


if __name__ == "__main__":
    raise SystemExit(main())
