"""Byte sizes as text: "512 MiB", "2GB"."""

import math
import re

UNITS = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


def parse_bytes(name: str, size: int | str) -> int:
    """Return the number of bytes in a size such as 2_000_000, "2MB" or "64 MiB".

    name: the argument's name, for error messages. Raises TypeError if size is neither an int nor a string, ValueError
    if it cannot be read or is not positive.
    """
    if isinstance(size, bool) or not isinstance(size, int | str):
        raise TypeError(f'{name} must be a number of bytes or a string such as "512 MiB", got {size!r}')
    amount = size
    if isinstance(size, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
        if found is None or found[2] not in UNITS:
            raise ValueError(f'{name} must be a number of bytes or a string such as "512 MiB" or "2GB", got {size!r}')
        amount = int(float(found[1]) * UNITS[found[2]])
    assert isinstance(amount, int)
    if amount <= 0:
        raise ValueError(f"{name} must be positive, got {size!r}")
    return amount


def format_bytes(nbytes: int, *, up: bool = False) -> str:
    """Return the size with three digits and a unit, such as "1.5 MiB". up: round it up, to nbytes or more."""
    for unit in ("GiB", "MiB", "KiB"):
        if nbytes >= UNITS[unit]:
            amount = nbytes / UNITS[unit]
            digits = max(0, 2 - int(math.log10(amount)))
            return f"{math.ceil(amount * 10**digits) / 10**digits if up else amount:.3g} {unit}"
    return f"{nbytes} B"
