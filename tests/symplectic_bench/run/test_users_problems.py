"""A user's own problem is imported and tried before anything is measured: one error with file, line and form."""

import textwrap
from pathlib import Path

import pytest

from symplectic_bench.run import users_problems
from symplectic_bench.run.users_problems import describe, require_sound
from symplectic_bench.spec.suite import SuiteError
from tests.symplectic_bench.sample_cells import make_cell

HEAD = """\
import torch
from torch import nn


class Field(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, t, y):
        return self.net(y)


T = torch.linspace(0.0, 1.0, 3)
STATE = []


def loss(ys):
    return ys[-1].square().mean()

"""
"""20 lines, so that the factory starts at line 21."""

SOUND = "def make(batch, *, width=4, kind='a', rate=0.5):\n    return Field(width), torch.randn(batch, 2), T, loss\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes mine/fields.py, or another file, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text, file="mine/fields.py", head=HEAD):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + textwrap.dedent(text))

    return write


def cell(**changes):
    return make_cell(problem="mine.fields:make", sizes={"width": 4, "kind": "a", "rate": 0.5}, **changes)


def complaint(**changes):
    """Return the message about the factory, whether it concerns the import or the problem."""
    with pytest.raises(SuiteError) as error:
        sizes = describe("mine.fields:make").sizes
        require_sound([make_cell(problem="mine.fields:make", sizes=dict(sizes), **changes)])
    return str(error.value)


FORM = "def make(batch, *, width=64)"


def test_a_sound_problem_has_its_sizes_and_passes(write):
    write(SOUND)
    assert describe("mine.fields:make").sizes == {"width": 4, "kind": "a", "rate": 0.5}
    require_sound([cell(), cell(dtype="float32"), cell(batch=7, seed=3), make_cell()])


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("def make(batch):\n    raise ValueError('boom')", "line 22", "make(batch=3) failed: ValueError: boom"),
        ("def make(batch):\n    return 1 / 0", "line 22", "ZeroDivisionError"),
        ("def make(batch):\n    raise SystemExit(3)", "line 22", "it called sys.exit"),
        ("def make(batch):\n    return torch.zeros(2) @ torch.zeros(3)", "line 22", "RuntimeError"),
        ("def make(batch):\n    pass", "line 21", "four things, func, y0, t and loss; got None"),
        ("def make(batch):\n    return Field(4), T", "line 21", "got a tuple of 2"),
        (
            "def make(batch):\n    return lambda t, y: y, T, T, loss",
            "line 21",
            "func, the first, must be a torch.nn.Mod",
        ),
        (
            "def make(batch):\n    return Field(4), torch.randn(2), T, loss",
            "line 21",
            "shape (3, dim), the batch first",
        ),
        (
            "def make(batch):\n    return Field(4), torch.randn(9, 2), T, loss",
            "line 21",
            "got a tensor of shape (9, 2)",
        ),
        ("def make(batch):\n    return Field(4), torch.ones(batch, 2).int(), T, loss", "line 21", "and dtype int32"),
        ("def make(batch):\n    return Field(4), [[0.0, 1.0]], T, loss", "line 21", "got a list of 1"),
        (
            "def make(batch):\n    return Field(4), torch.randn(batch, 2), 1.0, loss",
            "line 21",
            "increasing times; got a",
        ),
        ("def make(batch):\n    return Field(4), torch.randn(batch, 2), T.flip(0), loss", "line 21", "[1, 0.5, 0]"),
        ("def make(batch):\n    return Field(4), torch.randn(batch, 2), T[:1], loss", "line 21", "two or more increas"),
        ("def make(batch):\n    return Field(4), torch.randn(batch, 2), T, None", "line 21", "loss, the fourth"),
        ("def make(batch):\n    return nn.Linear(2, 2), torch.randn(batch, 2), T, loss", None, "func(t, y) failed: Ty"),
        ("def make(batch):\n    return Field(4), torch.randn(batch, 3), T, loss", "line 11", "func(t, y) failed: Runt"),
        (
            "class Wide(Field):\n    def forward(self, t, y):\n        return y.sum(1)\n\n"
            "def make(batch):\n    return Wide(4), torch.randn(batch, 2), T, loss",
            "line 25",
            "must return dy/dt, like y, a tensor of shape (3, 2) and dtype float64; got a tensor of shape (3,)",
        ),
        (
            "def bad(ys):\n    return ys.none\n\ndef make(batch):\n    return Field(4), torch.randn(batch, 2), T, bad",
            "line 22",
            "loss(ys) failed: AttributeError",
        ),
        (
            "def make(batch):\n    return Field(4), torch.randn(batch, 2), T, lambda ys: ys[-1]",
            "line 21",
            "scalar tensor",
        ),
        ("def make(batch):\n    return Field(4), torch.randn(batch, 2), T, lambda ys: 1.0", "line 21", "type float"),
        (
            "def make(batch):\n    return Field(4), torch.randn(batch, 2), T, lambda ys: ys.detach().sum()",
            "line 21",
            "must be differentiable",
        ),
        (
            "def make(batch):\n    STATE.append(0)\n    return Field(4), torch.ones(batch, 2) * len(STATE), T, loss",
            "line 21",
            "two calls with the same arguments and seed give different numbers",
        ),
        ("def make():\n    return Field(4), torch.randn(1, 2), T, loss", "line 21", "first argument must be batch"),
        ("def make(width=3):\n    return Field(4), torch.randn(1, 2), T, loss", "line 21", "it has (width=3)"),
        (
            "def make(batch, width):\n    return Field(4), torch.randn(1, 2), T, loss",
            "line 21",
            "'width' has no default",
        ),
        ("def make(batch, *, w):\n    return Field(4), torch.randn(1, 2), T, loss", "line 21", "'w' has no default"),
        ("make = 3", None, "'make' in mine/fields.py must be a function; it is an object of type int"),
        ("def makes(batch): ...", None, "mine/fields.py has no 'make'; did you mean 'makes'?"),
        ("raise RuntimeError('at import')", "line 21", "importing mine.fields failed: RuntimeError: at import"),
        ("import sys\nsys.exit('no')", "line 22", "it called sys.exit: no"),
        ("import nowhere_at_all", "line 21", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def make(batch)\n    pass", "line 21", "SyntaxError"),
    ],
)
def test_a_mistake_is_one_error_with_file_line_and_form(write, text, place, words):
    write(text)
    said = complaint()
    first, *form = said.splitlines()
    assert words in said and FORM in "\n".join(form)
    assert first.startswith("problem mine.fields:make: ")
    if place is not None:
        assert f"mine/fields.py, {place}: " in first


def test_a_module_that_is_missing_is_named(write):
    write(SOUND, file="other.py")
    assert "there is no module 'mine' in the current folder" in complaint()
    write(SOUND, file="mine/other.py")
    assert "there is no module 'mine.fields' in the current folder" in complaint()


def test_code_that_ends_the_process_or_never_ends_is_reported(write, monkeypatch):
    write("import os\nos._exit(7)")
    assert "problem mine.fields:make: the process ended with exit code 7 and no result" in complaint()
    monkeypatch.setattr(users_problems, "LIMIT_S", 5.0)
    write("import time\ntry:\n    time.sleep(1000)\nexcept Exception:\n    pass")
    assert "mine/fields.py, line 23: importing mine.fields failed: TookTooLong: no end after 5 s" in complaint()
    write("def make(batch):\n    while True:\n        pass")
    assert "make(batch=3) failed: TookTooLong" in complaint()


def test_what_it_prints_and_sets_does_no_harm(write, capfd):
    write(
        """
        print("noise")
        torch.set_num_threads(2)
        def make(batch, /, *, seed=5, flag=True, both=(1, 2), scale=float("inf"), width=4, **others):
            print("noise")
            return Field(width), torch.randn(batch, 2), T, loss
        """
    )
    assert describe("mine.fields:make").sizes == {"width": 4}  # the others are no numbers, or mean something else
    require_sound([make_cell(problem="mine.fields:make", sizes={"width": 4})])
    assert "noise" not in capfd.readouterr().out


def test_the_draws_of_numpy_and_random_are_seeded_too(write):
    write(
        """
        import random
        import numpy as np
        def make(batch):
            y0 = torch.tensor(np.random.randn(batch, 2)) + random.random()
            return Field(4), y0, T, loss
        """
    )
    require_sound([make_cell(problem="mine.fields:make")])


def test_the_source_is_that_of_all_the_users_code_and_of_nothing_installed(write):
    write("import helpers.deep\n" + SOUND)
    write("", file="mine/unrelated.py", head="")
    write("def f():\n    import late", file="helpers/deep.py", head="")
    write("", file="helpers/beside.py", head="")
    write("X = 1", file="late.py", head="")
    write("X = 1", file="not_imported.py", head="")
    sources = {describe("mine.fields:make").source}
    for file in ("mine/fields.py", "mine/unrelated.py", "helpers/deep.py", "helpers/beside.py", "late.py"):
        text = Path(file).read_text()
        write(text + "# edited\n", file=file, head="")
        sources.add(describe("mine.fields:make").source)
    assert len(sources) == 6
    write("X = 2", file="not_imported.py", head="")
    assert describe("mine.fields:make").source in sources
