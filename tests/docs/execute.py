"""Execute docs/tutorial.ipynb by Jupyter, in a folder for what it writes: python -m tests.docs.execute FOLDER."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.docs.notebook import NOTEBOOK


def execute(folder: Path) -> int:
    """Execute every cell and return how many cells of code there are. Raises CellExecutionError."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return sum(cell.cell_type == "code" for cell in notebook.cells)


if __name__ == "__main__":
    print(f"executed {execute(Path(sys.argv[1]))} cells of {NOTEBOOK.name}")
