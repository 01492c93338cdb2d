"""The source that a user's own problem is made of: its module, and all of the user's code that this imports."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NOT_OF_THE_USER = {
    *sys.stdlib_module_names,
    *("symplectic_adjoint", "symplectic_bench", "torch", "numpy", "torchdiffeq", "torchode", "diffrax", "jax"),
}
"""Packages that the environment of a run names with their versions, wherever they are installed."""

_IMPORTED = re.compile(rb"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+([\w., \t]+))", re.MULTILINE)


def source_digest(*modules: str) -> str:
    """Return 16 hex digits of the names and contents of all source files that these modules may run.

    These are the files of their top-level packages, and of the packages that those import, also inside functions, as
    far as they are not installed: versions identify installed ones. The answer does not depend on what this process
    has imported.
    """
    digest = hashlib.sha256()
    first = {name.partition(".")[0] for name in modules} - NOT_OF_THE_USER
    waiting, seen = sorted(first), set(first)
    while waiting:
        package = waiting.pop(0)
        for name, text in _files(package):
            digest.update(repr((package, name, text)).encode())
            found = {name for match in _IMPORTED.finditer(text) for name in _top_levels(match)}
            new = {name for name in found - seen - NOT_OF_THE_USER if _is_the_users(name)}
            seen |= found
            waiting += sorted(new)
    return digest.hexdigest()[:16]


def _top_levels(match: re.Match[bytes]) -> Iterator[str]:
    """Yield the top-level names in `from NAME...` or in `import NAME..., NAME...`."""
    for name in (match[1] or match[2]).decode().split(","):
        yield name.strip().partition(" ")[0].partition(".")[0]


def _is_the_users(package: str) -> bool:
    places = _places(package)
    return bool(places) and not any(is_installed(place) for place in places)


def is_installed(place: Path) -> bool:
    """Return whether the path is that of an installed package."""
    return bool({"site-packages", "dist-packages"} & set(place.parts))


def _files(package: str) -> Iterator[tuple[str, bytes]]:
    for place in _places(package):
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        for file in files:
            if not file.is_file() or (place.is_dir() and is_installed(file.relative_to(place))):
                continue  # the second is an environment inside a folder that is imported as a package
            yield file.relative_to(place).as_posix(), file.read_bytes()


def _places(package: str) -> list[Path]:
    """Return the folders of a package, or the file of a module; none if it has no source."""
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None and spec.has_location else []
