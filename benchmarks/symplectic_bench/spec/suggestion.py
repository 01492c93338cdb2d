"""The end of a message about an unknown name: the name that was meant, and all that there are."""

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

LIKENESS = 0.6
"""The least ratio of difflib's that makes a name near, as in difflib.get_close_matches."""


def suggestion(got: str, allowed: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> str:
    """Return the end of an error message: the allowed name that was meant, if one is near, and all of them.

    Case, hyphens, underscores and spaces make no difference. elsewhere: names used by others, each with the allowed
    name of the same thing. Of equally near names the first counts.
    """
    allowed = list(allowed)
    meant: dict[str, str] = {}
    for spelling, name in (*((name, name) for name in allowed), *(elsewhere or {}).items()):
        if name in allowed:
            meant.setdefault(_bare(spelling), name)
    wanted = _bare(got)
    likeness = {spelling: SequenceMatcher(a=spelling, b=wanted).ratio() for spelling in meant}
    near = max(likeness, key=lambda spelling: likeness[spelling], default="")
    hint = f"; did you mean {meant[near]!r}?" if likeness.get(near, 0.0) >= LIKENESS else ""
    return f"{hint} (there are: {', '.join(allowed) or 'none'})"


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
