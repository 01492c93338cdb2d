"""The layout in CONTRIBUTING.md is that of the tree, in the order in which folders may import each other."""

import re

import pytest

from tests.clone import ROOT
from tests.recipes.walks import PAGE, WALKS
from tests.test_layering import LEVEL, PACKAGE, SUITE_LEVEL, SUITE_PACKAGE, source_files

LINE = re.compile(r"^    (\w+)(?:/|\.py) +\S", re.MULTILINE)
_, OF_LIBRARY, OF_SUITE = re.split(r"^The (?:library|suite), ", PAGE, flags=re.MULTILINE)
LIBRARY, SUITE = LINE.findall(OF_LIBRARY), LINE.findall(OF_SUITE)


def places(package):
    """Return the folders and modules of a package, those without Python included."""
    return {
        path.relative_to(package).with_suffix("").parts[0]
        for path in [*source_files(package), *package.rglob("*.toml")]
    }


@pytest.mark.parametrize(("listed", "package"), [(LIBRARY, PACKAGE), (SUITE, SUITE_PACKAGE)], ids=["library", "suite"])
def test_every_folder_is_listed_once(listed, package):
    assert sorted(listed) == sorted(places(package))


@pytest.mark.parametrize(("listed", "level"), [(LIBRARY, LEVEL), (SUITE, SUITE_LEVEL)], ids=["library", "suite"])
def test_a_folder_comes_after_those_that_it_may_import(listed, level):
    levels = [level[name] for name in listed if name != "suites"]  # which holds no code
    assert levels == sorted(levels)


def test_every_file_that_the_page_names_exists():
    created = {edit.path for edits in WALKS.values() for edit in edits if edit.line is None}
    named = set(re.findall(r"`([\w./]+/[\w.]+\.(?:py|md|toml))`", PAGE)) - created
    roots = [ROOT, PACKAGE, SUITE_PACKAGE, ROOT / "tests"]
    assert len(named) > 10
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_path_that_tox_passes_to_pytest_exists():
    paths = re.findall(r"tests/[\w./]+", (ROOT / "tox.ini").read_text())
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []
