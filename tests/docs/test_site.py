"""The site (mkdocs.yml) has every page and every public name. That it builds is checked by tox run -e docs."""

import re
from inspect import ismodule

import pytest

import symplectic_adjoint
from tests.clone import ROOT
from tests.docs.pages import PAGES

NAVIGATION = (ROOT / "mkdocs.yml").read_text()
API = (ROOT / "docs" / "api.md").read_text()


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_a_page_is_in_the_navigation_and_in_readme(page):
    assert f": {page.name}\n" in NAVIGATION
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text()


def test_the_api_page_has_every_public_name():
    public = {name for name, one in vars(symplectic_adjoint).items() if name[0] != "_" and not ismodule(one)}
    assert sorted(re.findall(r"^::: symplectic_adjoint\.(\w+)$", API, re.MULTILINE)) == sorted(public)
