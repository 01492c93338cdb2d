"""The notebook is the tutorial, whose code the tests run (test_code.py)."""

import json

from tests.docs.notebook import NOTEBOOK, PAGE, notebook
from tests.docs.pages import fenced_blocks


def test_the_notebook_is_that_of_the_page():
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook(PAGE) + "\n", "run python -m tests.docs.notebook"


def test_its_code_cells_are_the_pages_blocks_of_python():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    blocks = [block.text for block in fenced_blocks(PAGE) if block.language == "python"]
    assert ["".join(cell["source"]) + "\n" for cell in cells] == blocks
    assert len(cells) > 5 and any(cell["outputs"] for cell in cells)
