"""The page of error messages quotes messages that the library has, and leaves none of its errors out."""

import ast
import inspect
import re

from symplectic_adjoint import errors
from tests.clone import ROOT
from tests.docs.pages import fenced_blocks

PAGE = ROOT / "docs" / "troubleshooting.md"


def literals():
    """Return every string of the library, an f-string as one with a \\0 for each value in it."""
    texts = []
    for path in (ROOT / "symplectic_adjoint").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "\0" for p in node.values))
    return texts


def test_every_quoted_message_is_one_of_the_library():
    known = literals()
    quoted = [line for block in fenced_blocks(PAGE) if block.language == "text" for line in block.text.splitlines()]
    assert len(quoted) > 40
    unknown = []
    for line in quoted:
        # "..." stands for what differs: values, and the parts before and after.
        pattern = re.compile(".*?".join(map(re.escape, line.split("..."))), re.DOTALL)
        if not any(pattern.search(text) for text in known):
            unknown.append(line)
    assert unknown == []


def test_every_error_and_warning_has_its_section():
    headings = " ".join(re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE))
    classes = [
        name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception | Warning)
    ]
    assert [name for name in classes if name not in headings and name != "SolverError"] == []
