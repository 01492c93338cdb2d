"""pydantic's errors in the words of this suite."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from symplectic_bench.spec.suggestion import suggestion

WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("dict_type", "model_type"), "must be a table"),
    **dict.fromkeys(("too_short", "string_too_short"), "must not be empty"),
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "list_type": "must be a list",
    "string_type": "must be a string",
}
"""What is wrong, by pydantic's type of the error, with the numbers of its context."""


def sentences(why: ValidationError, root: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> list[str]:
    """Return each error as a sentence: the key, what is wrong, what was got, what is allowed.

    root: what was validated. tables: the tables in it, by the keys that hold them.
    """
    return list(dict.fromkeys(_sentence(error, root, tables) for error in why.errors()))


def _sentence(error: Any, root: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> str:
    location = [part for part in error["loc"] if part != "[key]"] or [root.__name__.lower()]
    if location[-1] in ("int", "float", "str") and isinstance(location[-2], int):  # one error for each type allowed
        return f"{_dotted(location[:-1])}: must be a number or a string; got {error['input']!r}"
    *above, last = location
    if error["type"] == "extra_forbidden":
        table = next((tables[part] for part in reversed(above) if part in tables), root)
        return f"{_dotted(location)}: unknown key{suggestion(str(last), table.model_fields)}"
    if error["type"] == "missing":
        return f"{_dotted(location)}: is missing"
    return f"{_dotted(location)}: {complaint(error)}"


def _dotted(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def complaint(error: Any) -> str:
    """Return what is wrong with a value, and the value."""
    message, got = error["msg"].removeprefix("Value error, "), error["input"]
    choices = re.fullmatch(r"(?:Input should be|.* is not one of) ('.*')\.?", message, re.DOTALL)
    if choices and isinstance(got, str):
        allowed = re.findall(r"'([^']*)'", choices[1])
        return f"unknown {got!r}{suggestion(got, allowed)}"
    if error["type"] in WORDS:
        message = WORDS[error["type"]].format(**error.get("ctx", {}))
    shown = "" if isinstance(got, dict | list) else f"; got {got!r}"
    return f"{message[0].lower()}{message[1:]}{shown}"
