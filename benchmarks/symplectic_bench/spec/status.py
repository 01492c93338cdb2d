"""The possible outcomes of a cell."""

from enum import StrEnum


class Status(StrEnum):
    """The outcome of a cell. All but `error` are final results; `error` is an internal failure and is retried."""

    OK = "ok"
    TIMEOUT = "timeout"
    OOM = "oom"
    DIVERGED = "diverged"
    ERROR = "error"
    SKIPPED = "skipped"
