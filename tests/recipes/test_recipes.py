"""The walks of CONTRIBUTING.md, carried out from its text on a copy of the sources, and what they add put to use."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.walks import PAGE, WALKS, Edit, carry_out, copy_sources

LIBRARY, SUITE = "symplectic_adjoint", "benchmarks/symplectic_bench"
GRADIENT_RECORDS = f"{SUITE}/contenders/gradient_records.py"

TOY = """
name = "toy"
title = "Toy"
description = "The method, gradient, contender and problem that the walks add."
max_cells = 4
budget_s = 120
cell_timeout_s = 60
repeats = 1

[[block]]
problem = [{ name = "decay" }]
method = "ralston2"
steps = 5
contenders = { ours = ["symplectic", "alternate"] }

[[block]]
problem = [{ name = "decay" }]
method = "midpoint"
steps = 5
contenders = { ours = "alternate", by-hand = "backprop" }
"""

BETA = """
import torch
from symplectic_adjoint import solve

def grid(**options):
    y0, t = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 5.0], dtype=torch.float64)
    func = lambda t, y: torch.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])
    return solve(func, y0, t, rtol=1e-5, atol=1e-5, options={"controller": "PI", **options}).grid.h.tolist()

assert grid() == grid(beta=0.4) != grid(beta=0.0)
try:
    grid(beta=-1.0)
except ValueError as error:
    print(error)
"""


class Copy:
    """A copy of the sources in which all walks were carried out."""

    def __init__(self, folder: Path):
        self.folder = folder
        copy_sources(folder)
        for edits in WALKS.values():
            carry_out(edits, folder)
        (folder / "toy.toml").write_text(TOY)

    def run(self, *arguments: str) -> str:
        """Run Python there, without the packages of this clone, and return what it printed."""
        path = os.pathsep.join(map(str, (self.folder, self.folder / "benchmarks")))
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_tests(self, *arguments: str) -> str:
        return self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def measured(copy):
    """Return the folder of the copy, after its suite has run."""
    copy.run("-m", "benchmarks", "run", "toy.toml", "--results", "results", "--plots", "plots")
    return copy.folder


def files_of(heading: str) -> set[str]:
    return {edit.path for edit in WALKS[heading]}


def test_every_block_of_code_is_an_edit_with_a_place():
    assert sum(len(edits) for edits in WALKS.values()) == len(re.findall(r"^```\w", PAGE, re.MULTILINE))
    assert all(WALKS.values())


def test_an_edit_whose_line_is_missing_or_stands_twice_is_refused():
    edit = Edit("a.py", "after", "x = 1", "y = 2\n")
    assert edit.applied_to("if z:\n    x = 1\n") == "if z:\n    x = 1\n    y = 2\n"
    for text in ("", "x = 1\nx = 1\n", None):
        with pytest.raises(AssertionError, match=r"a\.py"):
            edit.applied_to(text)


def test_a_walk_touches_as_few_files_as_the_layout_promises():
    assert files_of("Add a method") == {f"{LIBRARY}/methods/order_1_to_4.py"}
    of_gradient = {f"{LIBRARY}/gradients/alternate.py", f"{LIBRARY}/gradients/__init__.py"}
    assert files_of("Add a gradient") == of_gradient | {GRADIENT_RECORDS, "README.md"}
    contender = {f"{SUITE}/contenders/by_hand.py", f"{SUITE}/contenders/contender_records.py"}
    assert files_of("Add a contender") == contender
    column, measurement = {f"{SUITE}/rows/record.py", f"{SUITE}/report/tables.py"}, f"{SUITE}/measure/gradient_error.py"
    assert files_of("Add a metric and its column") == column | {measurement}
    assert {heading: len(files_of(heading)) for heading in WALKS} == {
        "Add a method": 1,
        "Add a gradient": 4,
        "Add an option of step control": 2,
        "Add a contender": 2,
        "Add a problem": 2,
        "Add a metric and its column": 3,
        "Add a figure": 2,
        "Add a command": 2,
    }


def test_the_code_of_the_walks_is_formatted_and_free_of_lint(copy):
    files = sorted({edit.path for edits in WALKS.values() for edit in edits if edit.path.endswith(".py")})
    for command in (("format", "--check"), ("check", "--no-cache")):
        copy.run("-m", "ruff", *command, *files)


def test_the_method_and_the_gradient_are_autograd_on_the_recorded_grid(copy):
    """And make the f calls that are stated for all methods and predicted by the gradient, and its facts are true."""
    exact = "(test_exactness or test_counts) and (ralston2 or alternate and (midpoint or dop853) or predicts)"
    copy.run_tests("tests/symplectic_adjoint/gradients", "-k", f"{exact} or test_facts and alternate")


def test_the_tests_of_registries_and_records_need_no_new_line(copy):
    """So that a method touches one file, and a gradient and a contender two each, besides a test of their own."""
    copy.run_tests(
        "tests/symplectic_adjoint/methods/test_registry.py",
        "tests/symplectic_adjoint/methods/test_methods.py",
        "tests/symplectic_bench/contenders/test_gradient_records.py",
        "tests/symplectic_bench/report/test_figures.py",
        "tests/test_layering.py",
    )


def test_the_problem_passes_the_tests_of_all_problems(copy):
    copy.run_tests("tests/symplectic_bench/problems", "-k", "decay")


def test_the_option_changes_the_steps_and_is_checked(copy):
    said = copy.run("-c", BETA)
    assert said == "option 'beta' must be a positive number or zero (a magnitude, for either direction), got -1\n"


def test_the_suite_runs_with_them_and_the_table_has_the_column(measured):
    with (measured / "results/toy/tables/gradients.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [
        "ours symplectic",
        "ours alternate",
        "ours alternate",
        "by-hand backprop",
    ]
    assert {line["status"] for line in lines} == {"ok"}
    assert all(float(line["error_discrete"]) < 1e-14 for line in lines)
    assert all(float(line["gradient_norm"]) > 0 for line in lines)
    heading, *_ = (
        line for line in (measured / "results/toy/tables/gradients.md").read_text().splitlines() if "|" in line
    )
    assert r"\|gradient\|" in heading


def test_the_figure_is_drawn_and_shown_on_the_page(measured):
    assert (measured / "plots/toy/calls-time.svg").stat().st_size > 0
    assert "calls-time.svg" in (measured / "results/toy/README.md").read_text()


def test_the_command_is_in_the_help_and_counts_cells(copy, measured):
    assert "Count the measured cells" in copy.run("-m", "benchmarks", "--help")
    assert copy.run("-m", "benchmarks", "status", "toy.toml", "--results", "results") == "toy: 4 ok\n"
