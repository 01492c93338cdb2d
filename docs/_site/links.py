"""The parts of the site that are not in docs/: README as its first page, two more pages, and links to files outside.

Pages link to each other and to files of the repository as they must on GitHub. On the site a link to a page stays one,
a figure is copied, and any other file is one of the repository, at the address that pyproject.toml names.
"""

import os
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
OUTSIDE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""The pages of the site that are files at the top of the repository."""

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the repository."""
    config.repo_url, config.repo_name = REPOSITORY, "repository"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and the figures that pages link to."""
    for name, source in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for page in [file for file in files if file.is_documentation_page()]:
        for link, _ in _LINK.findall(Path(page.abs_src_path or "").read_text(encoding="utf-8")):
            target = _target(page.src_uri, link)
            name = _site_path(target)
            if target.suffix == ".svg" and name not in files.src_uris:
                files.append(File.generated(config, name, abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the links to what is not in docs/."""
    del config, files
    prose = _FENCED.split(markdown)  # fenced code is at odd places
    prose[::2] = [_LINK.sub(lambda link: _on_site(page.file.src_uri, link), text) for text in prose[::2]]
    return "".join(prose)


def _target(page: str, link: str) -> Path:
    """Return the file to which a page, by its name on the site, links."""
    source = ROOT / OUTSIDE[page] if page in OUTSIDE else ROOT / "docs" / page
    return Path(os.path.normpath(source.parent / link))


def _site_path(target: Path) -> str:
    """Return a file's path on the site, if it has one."""
    pages = {ROOT / source: name for name, source in OUTSIDE.items()}
    docs = ROOT / "docs"
    return pages.get(target) or target.relative_to(docs if target.is_relative_to(docs) else ROOT).as_posix()


def _on_site(page: str, link: re.Match[str]) -> str:
    target, anchor = _target(page, link[1]), link[2] or ""
    is_page = target.is_relative_to(ROOT / "docs") or target in {ROOT / source for source in OUTSIDE.values()}
    if is_page or target.suffix == ".svg":
        return f"]({os.path.relpath(_site_path(target), Path(page).parent)}{anchor})"
    kind = "tree" if target.is_dir() else "blob"
    return f"]({REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}{anchor})"
