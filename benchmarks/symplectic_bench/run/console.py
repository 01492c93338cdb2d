"""The console: everything that commands and sweeps print, literally."""

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text


def visible(text: str) -> str:
    """Return the text with an escape in place of each character that would change what a terminal shows.

    Those are control characters, of which new lines and tabs stay, marks of direction, and bytes that are not UTF-8.
    """
    return "".join(c if c in "\n\t" or not _is_hidden(c) else c.encode("unicode_escape").decode() for c in text)


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


class LiteralConsole(Console):
    """A console without markup: names, paths and messages may contain brackets, colons and control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


console = LiteralConsole()
