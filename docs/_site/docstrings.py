"""Docstrings as Markdown: each entry `name: text`, with the indented lines below it, is an item of a list."""

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"(\w+(?:, \w+)*): (?=\S)")


def as_markdown(text: str) -> str:
    """Return a docstring with its entries as a list, which starts after an empty line."""
    lines: list[str] = []
    in_list = False
    for line in text.replace("][", "]\\[").splitlines():  # an index, not a link
        entry = _ENTRY.match(line)
        if entry:
            if not in_list:
                lines.append("")
            line = f"- `{entry[1]}`: {line[entry.end() :]}"
        elif in_list and line and not line.startswith(" "):
            lines.append("")
        in_list = entry is not None or (in_list and line.startswith(" "))
        lines.append(line)
    return "\n".join(lines)


class Entries(griffe.Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
