"""The version stands in one place of the sources, and what repeats it says the same."""

import re
import tomllib

import symplectic_adjoint
from tests.clone import ROOT

VERSION = symplectic_adjoint.__version__
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_package_takes_its_version_from_the_library():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_the_newest_entry_of_the_changelog_and_the_citation_are_of_this_version():
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == VERSION
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_address_of_the_repository_is_the_same_everywhere():
    address = PROJECT["urls"]["Repository"]
    assert all(url.startswith(address) for url in PROJECT["urls"].values())
    assert f'repository-code: "{address}"' in (ROOT / "CITATION.cff").read_text()
    for name in ("README.md", "docs/ci.md"):
        assert f"git+{address}" in (ROOT / name).read_text()
