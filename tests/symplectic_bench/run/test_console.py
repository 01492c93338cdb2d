"""The console prints every text as it is."""

import io
import re

import pytest

from symplectic_bench.run.console import LiteralConsole, visible
from tests.clone import ROOT

HOSTILE = [
    "[red]", "[/]", "[/red]", "[bold]x[/bold]", "[link=file:///x]y[/link]", "[@click=f]z", ":smile:", "nopackage:x:",
    r"\[x]",
    "ends with a backslash\\", "{0} {name} %s %(x)s", "[1, 2, 3] 1e-12 True None 'text' https://a.b/c", "a" * 10_000,
    "käse €", "<b>&amp;</b>",
]  # fmt: skip
CONTROL = {
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]8;;http://a\x07b": r"\x1b]8;;http://a\x07b",
    "a\rb": r"a\rb",
    "a\x08b\x00": r"a\x08b\x00",
    "\x9b31m": r"\x9b31m",
    "abc\u202etxt.exe": r"abc\u202etxt.exe",
    "not UTF-8: \udcff": r"not UTF-8: \udcff",
    "line\u2028separator": r"line\u2028separator",
}


def printed(text, **options):
    file = io.StringIO()
    LiteralConsole(file=file, width=40, **options).print(text, style="red")
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_a_text_is_printed_as_it_is(text):
    assert printed(text) == f"{text}\n"
    colored = printed(text, force_terminal=True, color_system="standard")
    assert re.sub(r"\x1b\[\d*m", "", colored) == f"{text}\n" and colored.startswith("\x1b[31m")


@pytest.mark.parametrize(("text", "shown"), CONTROL.items(), ids=CONTROL.values())
def test_a_control_character_is_printed_as_an_escape(text, shown):
    assert printed(text) == f"{shown}\n"
    assert visible(f"{text}\n\tindented") == f"{shown}\n\tindented"


def test_no_source_of_the_suite_uses_markup():
    for path in (ROOT / "benchmarks" / "symplectic_bench").rglob("*.py"):
        text = path.read_text()
        assert "rich.markup" not in text, path
        assert not re.search(r"""["']\[/?(red|green|yellow|cyan|bold)\]""", text), path
        assert "Console(" not in text or path.name == "console.py", path
