"""The code of README and docs runs, and prints what the pages say."""

import ast
import json
import re
import tomllib
import warnings

import pytest
import torch

import symplectic_adjoint
from symplectic_bench.run.sweep import load_vocabulary
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.suite import Scale, load_suite
from tests.clone import ROOT
from tests.docs.pages import PAGES, fenced_blocks, indented_blocks

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def given_names():
    """Return what a page may use without defining it: the library's names, and a problem func, y0, t of a user."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    library = {name: getattr(symplectic_adjoint, name) for name in dir(symplectic_adjoint) if name[0] != "_"}
    # A short interval: compare_gradients solves it dozens of times, in hundreds of steps by mali.
    y0, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0.0, 0.01])
    problem = {"func": lambda t, y: net(y), "y0": y0, "t": t}
    return {"__name__": "page", "torch": torch, "sa": symplectic_adjoint, **library, **problem}


def without_numbers(text):
    """Return the words of a text, sorted: what is measured may differ, and so may the order of rows sorted by it."""
    return sorted(re.sub(r"-?\d[\d.,]*(e[+-]?\d+)?", "#", text).split())


@every_page
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_python_of_a_page_runs_in_order_and_prints_what_the_page_says(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    names, printed, end = given_names(), "", 0
    for block in fenced_blocks(page):
        if block.language == "python" and block.reason_not_to_run is None:
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
            printed, end = capsys.readouterr().out, block.line + block.text.count("\n")
        elif block.language == "text" and block.line == end + 3:  # fences, and an empty line between them
            assert without_numbers(printed) == without_numbers(block.text), block.place


@every_page
def test_no_python_is_without_a_fence(page):
    for block in indented_blocks(page):
        with warnings.catch_warnings(), pytest.raises(SyntaxError):
            warnings.simplefilter("ignore")
            tree = ast.parse(block.text)
            if not any(isinstance(node, ast.Call) for node in ast.walk(tree)):
                raise SyntaxError("a formula or a list of words")
            pytest.fail(f"{block.place}: fence this as ```python, or its code is not run")


def test_the_suite_file_of_the_docs_is_one(tmp_path):
    (block,) = [b for b in fenced_blocks(ROOT / "docs" / "extending.md") if b.language == "toml"]
    path = tmp_path / "widths.toml"
    path.write_text(block.text)
    suite = load_suite(str(path))
    for scale, cells in {"cpu": 30, "smoke": 2}.items():
        assert len(expand(suite.at_scale(Scale(scale)), load_vocabulary())) == cells


READERS = {"python": ast.parse, "toml": tomllib.loads, "json": json.loads, "yaml": None, "text": None, "mermaid": None}
"""How a block is read at least, by the language of its fence; None if there is no reader of it here."""


@every_page
def test_every_fence_names_a_language_and_holds_a_text_of_it(page):
    for block in fenced_blocks(page):
        assert block.language in READERS, block.place
        if reader := READERS[block.language]:
            reader(block.text)
