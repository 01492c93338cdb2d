"""The walks of CONTRIBUTING.md, read from its text: the edits of each, and how they are made in a copy of the sources.

An edit is a sentence that ends in a colon and a block of code. The sentence says where the block goes: `path`, "a new
file", or "after", "before" or "in place of" the line `...`, which the file must contain exactly once.
"""

import re
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.clone import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()

_EDIT = re.compile(
    r"^`(?P<path>[^`]+)`, "
    r"(?:(?P<new>a new file)|(?P<how>after|before|in place of) the line\s+(?P<ticks>`+)(?P<line>[^\n]+)(?P=ticks)):\n\n"
    r"```(?:python|markdown)\n(?P<block>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Edit:
    """A block of code and its place in a file. line: the line that it follows, precedes or replaces; None if new."""

    path: str
    how: str
    line: str | None
    block: str

    def applied_to(self, text: str | None) -> str:
        """Return the text of the file after this edit; text is None if there is no such file."""
        if self.line is None:
            assert text is None, f"{self.path} is to be a new file, but exists"
            return self.block
        assert text is not None, f"there is no {self.path}"
        lines = text.splitlines(keepends=True)
        found = [i for i, line in enumerate(lines) if line.strip() == self.line]
        assert len(found) == 1, f"{self.path} has {len(found)} lines {self.line!r}"
        at = found[0]
        indentation = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        start, end = {"before": (at, at), "after": (at + 1, at + 1), "in place of": (at, at + 1)}[self.how]
        return "".join([*lines[:start], textwrap.indent(self.block, indentation), *lines[end:]])


def read_walks(page: str) -> dict[str, list[Edit]]:
    """Return the edits of each walk by its heading."""
    _, *parts = re.split(r"^### (.+)$", page, flags=re.MULTILINE)
    sections = zip(parts[::2], parts[1::2], strict=True)
    return {
        heading: [Edit(m["path"], m["how"] or "new", m["line"], m["block"]) for m in _EDIT.finditer(section)]
        for heading, section in sections
    }


WALKS = read_walks(PAGE)


def carry_out(edits: list[Edit], folder: Path) -> None:
    """Make the edits in a copy of the sources."""
    for edit in edits:
        file = folder / edit.path
        file.write_text(edit.applied_to(file.read_text() if file.exists() else None))


def copy_sources(folder: Path) -> None:
    """Copy the library, the suite, the tests and the pages that tests read."""
    for name in ("symplectic_adjoint", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
