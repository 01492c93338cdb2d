"""All probes asked of all libraries, and the record of the answers."""

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from symplectic_bench.contenders.reasons import not_installed
from symplectic_bench.features.answer import Answer, Verdict
from symplectic_bench.features.libraries import LIBRARIES
from symplectic_bench.features.library import Library
from symplectic_bench.features.probes import FAMILIES, PROBES
from symplectic_bench.features.worker import LIMIT_S, arguments


@dataclass(frozen=True)
class Column:
    """A library's answers by probe, or why it could not be asked. It says nothing of the machine."""

    entry: str
    version: str
    missing: str
    answers: Mapping[str, Answer]


def survey(names: Iterable[str], on_progress: Callable[[str], None]) -> dict[str, Column]:
    """Ask the libraries of these names, each in a process of its own."""
    columns = {}
    for name in names:
        on_progress(f"asking {name}")
        columns[name] = column(LIBRARIES[name])
    return columns


def column(library: Library) -> Column:
    """Return the library's answers, or why there are none."""
    missing = not_installed(library.package, library.how)
    if missing:
        return Column(library.entry, "", missing, {})
    return Column(library.entry, installed_version(library.distribution), "", answers(library.name, tuple(PROBES)))


def installed_version(distribution: str) -> str:
    """Return the version that pip knows, without what a build adds, or "source"."""
    try:
        return version(distribution).partition("+")[0]
    except PackageNotFoundError:
        return "source"


def answers(name: str, probes: tuple[str, ...]) -> dict[str, Answer]:
    """Return the answers of a library. If its process dies or hangs, that is the answer, and the rest is asked anew."""
    found: dict[str, Answer] = {}
    while rest := [probe for probe in probes if probe not in found]:
        lines, end = lines_of(arguments(name, rest))
        for line in map(json.loads, lines):
            found[line["probe"]] = Answer(Verdict(line["verdict"]), line["detail"])
        if missed := [probe for probe in rest if probe not in found]:
            found[missed[0]] = Answer(Verdict.REFUSED, end)
    return found


def lines_of(command: list[str]) -> tuple[list[str], str]:
    """Run a worker to its end, or until it is silent for too long, and return its lines and how it ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            out, _ = process.communicate(timeout=LIMIT_S * 10)
            return out.splitlines(), f"its process ended with code {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            return out.splitlines(), "no end"


def to_json(columns: Mapping[str, Column]) -> str:
    """Return the record of a survey, its questions included."""
    questions = {family.title: {probe.name: probe.question for probe in family.probes} for family in FAMILIES}
    torch = installed_version("torch")
    record = {"torch": torch, "questions": questions, "libraries": {name: asdict(one) for name, one in columns.items()}}
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> dict[str, Column]:
    """Return the columns of a record."""
    libraries: dict[str, Any] = json.loads(text)["libraries"]
    return {
        name: Column(
            one["entry"],
            one["version"],
            one["missing"],
            {probe: Answer(Verdict(given["verdict"]), given["detail"]) for probe, given in one["answers"].items()},
        )
        for name, one in libraries.items()
    }


def differences(committed: Mapping[str, Column], now: Mapping[str, Column]) -> list[str]:
    """Return a line for each answer or version that is not as committed, for the libraries that are installed now."""
    lines = []
    for name, column in now.items():
        if column.missing:
            continue
        before = committed.get(name) or Column("", "none", "", {})
        if before.version != column.version:
            lines.append(f"{name}: version {before.version or 'none'} committed, {column.version} here")
        for probe in {**before.answers, **column.answers}:
            old, new = before.answers.get(probe), column.answers.get(probe)
            if old != new:
                lines.append(f"{name} {probe}: {say(old)} committed, {say(new)} here")
    return lines


def say(answer: Answer | None) -> str:
    """Return an answer in words."""
    return "nothing" if answer is None else f"{answer.verdict}{f' ({answer.detail})' if answer.detail else ''}"
