"""Mutants that no test could notice: listed in equivalent.toml, each with its reason."""

import tomllib
from pathlib import Path

from tests.mutation.mutants import Change

LIST = Path(__file__).with_suffix(".toml")


class Equivalent:
    """Holds single changes, and kinds of changes: a text, wherever it stands, and what a mutant makes of it."""

    def __init__(self, text: str | None = None) -> None:
        entries = tomllib.loads(LIST.read_text() if text is None else text)
        self.changes = {Change(one["file"], one["line"], one["mutant"]) for one in entries.get("change", [])}
        self.kinds = [(one["text"], one["mutant"]) for one in entries.get("kind", [])]

    def __contains__(self, change: Change) -> bool:
        return change in self.changes or any(_is_of_kind(change, *kind) for kind in self.kinds)


def _is_of_kind(change: Change, text: str, mutant: str) -> bool:
    """Return whether the change is that of the text at one place."""
    pieces = change.line.split(text)
    return any(text.join(pieces[:n]) + mutant + text.join(pieces[n:]) == change.mutant for n in range(1, len(pieces)))
