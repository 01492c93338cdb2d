"""Write docs/tutorial.ipynb, the notebook of docs/tutorial.md: python -m tests.docs.notebook."""

import json
import re
from pathlib import Path

from tests.clone import ROOT

PAGE, NOTEBOOK = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "tutorial.ipynb"
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook(page: Path) -> str:
    """Return the page as a notebook: its text, its code, and below the code what the page says that it prints."""
    cells = []
    text, *rest = _BLOCK.split(page.read_text(encoding="utf-8"))
    for language, block, after in [("", "", text), *zip(rest[::3], rest[1::3], rest[2::3], strict=True)]:
        if language == "python":
            cells.append(
                {"cell_type": "code", "execution_count": None, "outputs": [], "source": _lines(block.rstrip())}
            )
        elif language == "text":
            cells[-1]["outputs"].append({"name": "stdout", "output_type": "stream", "text": _lines(block)})
        if after.strip():
            cells.append({"cell_type": "markdown", "source": _lines(after.strip())})
    for number, cell in enumerate(cells):
        cell |= {"id": f"cell-{number}", "metadata": {}}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps(
        {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1, sort_keys=True
    )


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE) + "\n", encoding="utf-8")
