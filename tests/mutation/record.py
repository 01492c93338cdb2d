"""Outcomes of earlier runs, in a file of JSON lines."""

import json
from pathlib import Path

from tests.mutation.mutants import Change, Mutant


class Record:
    """The outcome of each mutant, by its place and its change; none without a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {tuple(key): outcome for *key, outcome in map(json.loads, lines)}

    def outcome(self, mutant: Mutant, change: Change) -> str | None:
        return self._known.get(_key(mutant, change))

    def add(self, mutant: Mutant, change: Change, outcome: str) -> None:
        if self._path and self.outcome(mutant, change) != outcome:
            self._known[_key(mutant, change)] = outcome
            with self._path.open("a") as file:
                print(json.dumps([*_key(mutant, change), outcome]), file=file)


def _key(mutant: Mutant, change: Change) -> tuple[str | int, ...]:
    return mutant.path, mutant.operator, mutant.occurrence, change.line, change.mutant
