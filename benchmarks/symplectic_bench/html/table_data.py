"""Tables as plain data for the script: lines of text to sort and filter, and the CSV in full precision."""

from typing import Any

from symplectic_bench.report.typesetting import Table, to_csv


def table_data(table: Table) -> dict[str, Any]:
    """Return a table. If its sections have headings, each line begins with that of its section."""
    own = "group" if "group" not in table.headings else "section"
    headed = any(section.heading for section in table.sections)
    lines = [[section.heading, *line] if headed else list(line) for section in table.sections for line in section.lines]
    notes = [
        f"{section.heading}: {note}" if section.heading else note
        for section in table.sections
        for note in section.notes
    ]
    return {
        "kind": "table",
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "headings": [own, *table.headings] if headed else list(table.headings),
        "groups": [["", 1], *table.groups] if headed and table.groups else table.groups,
        "lines": lines,
        "notes": notes,
        "csv": to_csv(table),
    }
