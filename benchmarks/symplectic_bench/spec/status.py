"""How a cell can end."""

from enum import StrEnum


class Status(StrEnum):
    """How a cell ended. All but `error` are results and final; `error` is a failure of ours, tried again."""

    OK = "ok"
    TIMEOUT = "timeout"
    OOM = "oom"
    DIVERGED = "diverged"
    ERROR = "error"
    SKIPPED = "skipped"
