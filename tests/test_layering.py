"""The arrows of the architecture, read off the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each module may import the ones above it in its list only; modules of one line not each other.
LIBRARY = """
errors
tableau
methods field
step grid
finite control
clock timeline
outputs
loop
options transpose
problem
gradients.base gradients.accumulator gradients.checkpoints
gradients.sweep gradients.backprop gradients.baseline
gradients.aca gradients.symplectic gradients.continuous
gradients
bridge
api
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


@pytest.mark.parametrize("name", ["errors", "tableau", "methods"])
def test_what_is_data_does_not_need_torch(name):
    assert "torch" not in {i.split(".")[0] for i in imports(ROOT / "symplectic_adjoint" / f"{name}.py")}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: module_name(p, "benchmarks")
)
def test_the_suite_uses_the_librarys_public_names_only(path):
    for name in imports(path):
        assert name == "symplectic_adjoint" or not name.startswith("symplectic_adjoint."), f"{path.name}: {name}"
        assert not name.startswith("tests"), f"{path.name}: {name}"
