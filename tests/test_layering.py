"""The arrows of the architecture, read off the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each module may import the ones above it in its list only; modules of one line not each other.
LIBRARY = """
errors byte_size schedule allocator
tableau finite graph transforms running_sum slots locks storage
methods parameters state draws aliases compiled
surroundings
field
step grid
landing_step
coupled_step leapfrog_step
control
clock timeline
callbacks event outputs
loop
options transpose
problem
gradients.on_graph gradients.parameter_sums
gradients.base
cost
gradients.checkpoints gradients.sweep
gradients.backprop gradients.baseline gradients.aca gradients.symplectic gradients.continuous
gradients.revolve gradients.undoing gradients.budget
gradients.mali gradients.reversible gradients.auto
gradients
bridge event_time inputs
api
dense diagnosis drop_in module advice
comparison
"""


def imports(path):
    """Absolute names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            yield node.module


def module_name(path, package):
    name = ".".join(path.relative_to(ROOT / package).with_suffix("").parts)
    return name.removesuffix(".__init__")


def library_files():
    package = ROOT / "symplectic_adjoint"
    return [path for path in sorted(package.rglob("*.py")) if path != package / "__init__.py"]


LEVEL = {name: level for level, line in enumerate(LIBRARY.split("\n")) for name in line.split()}


def test_every_library_module_has_its_place():
    assert {module_name(path, "symplectic_adjoint") for path in library_files()} == set(LEVEL)


@pytest.mark.parametrize("path", library_files(), ids=lambda p: module_name(p, "symplectic_adjoint"))
def test_library_imports_point_one_way(path):
    own = module_name(path, "symplectic_adjoint")
    for name in imports(path):
        if name.startswith("symplectic_adjoint"):
            assert LEVEL[name.removeprefix("symplectic_adjoint.")] < LEVEL[own], f"{own} imports {name}"
        else:
            top = name.split(".")[0]
            assert top == "torch" or top in sys.stdlib_module_names, f"{own} imports {name}"


@pytest.mark.parametrize("name", ["errors", "byte_size", "schedule", "tableau", "methods"])
def test_what_is_data_does_not_need_torch(name):
    assert "torch" not in {i.split(".")[0] for i in imports(ROOT / "symplectic_adjoint" / f"{name}.py")}


# A subpackage is one place here: benchmarks.problems.mlp is problems.
SUITE = """
cell examples digits files missing_data
arrays
record data choices series
failure datasets
problems
models
tasks oracle twin
contenders
references
measure
process
environment suite
store expansion
executors
runner training
sweep summary parquet users_problem
known_references
baseline
typesetting exponent
numerals trials
targets claims regression
revisions
panels
figures tables claim_tables training_tables
training_figures
render page
portraits micro
publication
paper
commands
cli
__main__
"""
SUITE_LEVEL = {name: level for level, line in enumerate(SUITE.split("\n")) for name in line.split()}
SUITE_FILES = [p for p in sorted((ROOT / "benchmarks").rglob("*.py")) if p != ROOT / "benchmarks" / "__init__.py"]


def suite_place(path):
    return module_name(path, "benchmarks").split(".")[0]


@pytest.mark.parametrize("path", SUITE_FILES, ids=lambda p: module_name(p, "benchmarks"))
def test_suite_imports_point_one_way_and_use_the_librarys_public_names(path):
    own = suite_place(path)
    for name in imports(path):
        assert name == "symplectic_adjoint" or not name.startswith("symplectic_adjoint."), f"{own}: {name}"
        assert not name.startswith("tests"), f"{own}: {name}"
        if name.startswith("benchmarks."):
            other = name.split(".")[1]
            assert other == own or SUITE_LEVEL[other] < SUITE_LEVEL[own], f"{own} imports {other}"


@pytest.mark.parametrize(
    ("top", "allowed"),
    [
        ("matplotlib", {"render", "portraits"}),
        ("pandas", {"summary", "figures", "tables", "training_tables", "training_figures", "publication", "paper"}),
    ],
)
def test_heavy_libraries_stay_where_rows_are_shown(top, allowed):
    """A measuring process must never import them."""
    users = {suite_place(p) for p in SUITE_FILES if top in {name.split(".")[0] for name in imports(p)}}
    assert users <= allowed
