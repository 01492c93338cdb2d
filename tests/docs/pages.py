"""README and docs as text: their blocks, commands and links."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.clone import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""The pages whose code and commands are run or checked."""

LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"))]
"""The pages whose links are checked."""

NOT_RUN = re.compile(r"# Not run by the tests: .+")
"""The first line of a block that is not run, where readers see the reason."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_INDENTED = re.compile(r"(?<=\n\n)(?:(?: {4,}[^\n]*)?\n)*(?: {4,}[^\n]*\n)")
_SPAN = re.compile(r"(?<!`)`(?!`)([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code. language is that of its fence, "" without one; line is the number of its first line."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """The page and the line, as in an error message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason_not_to_run(self) -> str | None:
        """The first line, if it says why the block is not run."""
        first = self.text.partition("\n")[0]
        return first if NOT_RUN.fullmatch(first) else None


def fenced_blocks(page: Path) -> list[Block]:
    """Return the blocks between fences, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start("text")) + 1, m["language"], textwrap.dedent(m["text"]))
        for m in _FENCE.finditer(text)
    ]


def indented_blocks(page: Path) -> list[Block]:
    """Return the blocks without a fence. A paragraph within a list is one too: it is indented alike."""
    text = _FENCE.sub(lambda m: "\n" * m[0].count("\n"), page.read_text(encoding="utf-8"))
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, "", textwrap.dedent(m[0])) for m in _INDENTED.finditer(text)
    ]


def code_spans(page: Path) -> list[str]:
    """Return what stands between backticks within the text, on one line each."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in _SPAN.findall(text)]


def relative_links(page: Path) -> list[str]:
    """Return the targets of the links that do not lead to another site."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, formed as GitHub and Python-Markdown both form them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}
