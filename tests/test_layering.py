"""The levels of the architecture, checked on the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Bottom first. A folder, or a module at the top level, may import itself and those above it in this list.
LIBRARY = """
errors _torch_internals
methods
memory
field
steps
solve
backward
gradients
autograd_function defaults
arguments
api
diagnostics dense drop_in module
replacement
__main__
"""


def imports(path):
    """Yield the absolute names of the modules that a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield node.module


def place(path, package):
    """Return the name of the folder that holds a file, or of the module itself at the top level."""
    return path.relative_to(package).with_suffix("").parts[0]


def levels(places):
    return {name: level for level, line in enumerate(places.split("\n")) for name in line.split()}


def source_files(package):
    return [path for path in sorted(package.rglob("*.py")) if path != package / "__init__.py"]


PACKAGE = ROOT / "symplectic_adjoint"
LEVEL = levels(LIBRARY)


def test_every_folder_of_the_library_has_its_level():
    assert {place(path, PACKAGE) for path in source_files(PACKAGE)} <= set(LEVEL)


@pytest.mark.parametrize("path", source_files(PACKAGE), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_library_imports_point_one_way(path):
    own = place(path, PACKAGE)
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first == "symplectic_adjoint":
            other = rest.split(".")[0]
            assert other == own or LEVEL[other] < LEVEL[own], f"{own} imports {name}"
        else:
            assert first == "torch" or first in sys.stdlib_module_names, f"{own} imports {name}"


@pytest.mark.parametrize("path", ["errors.py", "memory/byte_size.py", "backward/schedule.py", "methods"])
def test_data_and_plans_do_not_need_torch(path):
    chosen = PACKAGE / path
    for file in source_files(chosen) if chosen.is_dir() else [chosen]:
        assert "torch" not in {name.split(".")[0] for name in imports(file)}


SUITE = """
files
spec examples
data
problems
models oracles
references tasks
contenders
measure features
rows
run
analysis
report
paper
html
commands
__main__
"""
SUITE_PACKAGE = ROOT / "benchmarks" / "symplectic_bench"
SUITE_LEVEL = levels(SUITE)
SUITE_FILES = source_files(SUITE_PACKAGE)


def test_every_folder_of_the_suite_has_its_level():
    assert {place(path, SUITE_PACKAGE) for path in SUITE_FILES} == set(SUITE_LEVEL)


@pytest.mark.parametrize("path", SUITE_FILES, ids=lambda p: str(p.relative_to(SUITE_PACKAGE)))
def test_suite_imports_point_one_way_and_use_the_librarys_public_names(path):
    own = place(path, SUITE_PACKAGE)
    for name in imports(path):
        assert name == "symplectic_adjoint" or not name.startswith("symplectic_adjoint."), f"{own}: {name}"
        assert not name.startswith("tests"), f"{own}: {name}"
        if name.startswith("symplectic_bench."):
            other = name.split(".")[1]
            assert other == own or SUITE_LEVEL[other] < SUITE_LEVEL[own], f"{own} imports {other}"


def test_only_the_renderers_import_matplotlib():
    users = {path.relative_to(SUITE_PACKAGE).as_posix() for path in SUITE_FILES if "matplotlib" in top_levels(path)}
    assert users == {"report/render.py", "report/portraits.py", "examples/figure.py"}


def test_a_measuring_process_never_imports_pandas():
    users = {place(path, SUITE_PACKAGE) for path in SUITE_FILES if "pandas" in top_levels(path)}
    assert users <= {"analysis", "report", "paper"}


def top_levels(path):
    return {name.split(".")[0] for name in imports(path)}
