"""Questions of users that a block of a suite answers, each with a table of its own in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from symplectic_bench.spec.toml_table import Name, TomlTable

By = Literal["time", "memory", "error"]

DEFAULT = "ours symplectic"


class Question(TomlTable):
    """A question, such as "Which is fastest on a small network?". Blocks with the same title answer it together.

    by is what decides: the time; or the peak tensor memory or the true error of the gradient, each beside the time.
    ours is the contender and gradient that stand for this library, chosen before anything is measured.
    """

    title: Name
    by: By = "time"
    ours: Name = DEFAULT


@dataclass(frozen=True)
class AskedQuestion:
    """A question and the groups that answer it: the contender and gradient that stand for ours, by group_id."""

    title: str
    by: By
    ours: Mapping[str, str]
