"""Suite files: what to measure, in TOML, checked key by key. Reading one does not import torch."""

import hashlib
import math
import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from symplectic_bench.spec.cell import Size
from symplectic_bench.spec.criteria import Claim, Criterion, Target
from symplectic_bench.spec.question import Question
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.toml_table import (
    LARGEST,
    AxisValues,
    Count,
    Name,
    Natural,
    Positive,
    Rounds,
    Threads,
    Tolerance,
    TomlTable,
)
from symplectic_bench.spec.validation import sentences

SUITES = Path(__file__).parents[1] / "suites"


class SuiteError(ValueError):
    """A suite file, or an option that narrows or changes a suite, is invalid."""


class Scale(StrEnum):
    """The size at which a suite is run.

    cpu is its own size, smoke takes seconds, gpu fills a large card; gpu-first has the first iterations of gpu only.
    """

    SMOKE = "smoke"
    CPU = "cpu"
    GPU = "gpu"
    GPU_FIRST = "gpu-first"


class Axes(TomlTable):
    """Axes that most cells share; each is one value or a list."""

    batch: AxisValues[Count] | None = None
    dtype: AxisValues[Literal["float32", "float64"]] | None = None
    device: AxisValues[Literal["cpu", "cuda"]] | None = None
    threads: AxisValues[Threads] | None = None
    seed: AxisValues[Natural] | None = None

    def over(self, defaults: "Axes") -> dict[str, list[Any]]:
        """Return the values of every shared axis: its own, else those of `defaults`, else the built-in ones."""
        given = [axes.model_dump(include=set(Axes.model_fields), exclude_none=True) for axes in (defaults, self)]
        return BUILT_IN | given[0] | given[1]


DEVICES = ("cpu", "cuda")

BUILT_IN: dict[str, list[Any]] = {
    "batch": [1],
    "dtype": ["float64"],
    "device": ["cpu"],
    "threads": [1],
    "seed": [0],
}


class Block(Axes):
    """A product of axes: every problem with every method, accuracy and contender.

    The accuracy is either rtol, with atol given or atol_over_rtol times rtol, or steps, the number of fixed steps.
    contenders maps a contender to its gradients. question lists what users ask that the block answers.
    """

    problem: Annotated[list[dict[str, Any]], Field(min_length=1)]
    method: AxisValues[Name]
    rtol: AxisValues[Tolerance] | None = None
    atol: Tolerance | None = None
    atol_over_rtol: Tolerance = 1e-2
    steps: AxisValues[Count] | None = None
    contenders: Annotated[dict[str, AxisValues[Name]], Field(min_length=1)]
    question: list[Question] = Field([])

    @field_validator("problem")
    @classmethod
    def _problems_have_a_name_and_plain_sizes(cls, problems: list[dict[str, Any]]) -> list[dict[str, Size]]:
        for problem in problems:
            if not isinstance(problem.get("name"), str):
                example = "{name = 'mlp', width = 64}"
                raise ValueError(f"each problem is a table with a name, such as {example}; got {problem}")
            for size, value in problem.items():
                what = f"size {size!r} of {problem['name']!r}"
                if type(value) is int and abs(value) > LARGEST:
                    raise ValueError(f"{what} must be a finite number of 64 bits; got {value!r:.80}")
                if not (type(value) in (str, int) or (isinstance(value, float) and math.isfinite(value))):
                    raise ValueError(f"{what} must be a finite number or a string; got {value!r:.80}")
        return problems

    @model_validator(mode="after")
    def _accuracy_is_tolerances_or_steps(self) -> Self:
        if (self.rtol is None) == (self.steps is None):
            raise ValueError("give rtol (adaptive steps) or steps (fixed steps), one of the two")
        if self.steps is not None and self.model_fields_set & {"atol", "atol_over_rtol"}:
            raise ValueError("atol and atol_over_rtol have no effect with fixed steps: remove them")
        if {"atol", "atol_over_rtol"} <= self.model_fields_set:
            raise ValueError("give atol or atol_over_rtol, not both")
        return self

    @model_validator(mode="after")
    def _questions_are_of_its_contenders(self) -> Self:
        names = [
            f"{contender} {gradient}" for contender, gradients in self.contenders.items() for gradient in gradients
        ]
        for question in self.question:
            if question.ours not in names:
                near = suggestion(question.ours, names)
                raise ValueError(f"question: ours = {question.ours!r} is not among the block's contenders{near}")
        return self

    @property
    def accuracies(self) -> list[tuple[float | None, float | None, int | None]]:
        """The (rtol, atol, steps) of each accuracy. atol has 12 digits: 1e-9 * 1e-2 is 1.0000000000000001e-11."""
        if self.steps is not None:
            return [(None, None, n) for n in self.steps]
        return [(r, self.atol or float(f"{r * self.atol_over_rtol:.12g}"), None) for r in self.rtol or ()]


class Overrides(TomlTable):
    """The keys that a scale changes. Its blocks, if any, replace all of the suite's blocks."""

    max_cells: Count | None = None
    budget_s: Positive | None = None
    cell_timeout_s: Positive | None = None
    repeats: Count | None = None
    repeats_compared: Count | None = None
    warmup: Rounds | None = None
    evaluate: bool | None = None
    defaults: Axes | None = None
    block: Annotated[list[Block], Field(min_length=1)] | None = None


class Suite(TomlTable):
    """A suite file. `name` is that of the file and of the folder of its results.

    measure lists what is measured besides errors and counts, which always are. If trains is true, the suite's problems
    are tasks, that is, networks to train: their losses, time, memory and calls are measured, and measure, repeats,
    repeats_compared and warmup are refused. repeats_compared: the timed rounds of groups of several cells, repeats if
    it is not given. compares: what a figure shows side by side, the gradients of one method or the methods, for a
    problem each, or the suite's claims. evaluate: whether the networks trained for longest are then evaluated on test
    data.
    """

    name: str
    title: Name
    description: Name
    max_cells: Count
    budget_s: Positive
    cell_timeout_s: Positive
    repeats: Count = 5
    repeats_compared: Count | None = None
    warmup: Rounds = 1
    measure: list[Literal["memory", "time"]] = Field(["memory", "time"])
    compares: Literal["gradients", "methods", "claims"] = "gradients"
    trains: bool = False
    evaluate: bool = True
    defaults: Axes = Axes()
    block: Annotated[list[Block], Field(min_length=1)]
    target: list[Target] = Field([])
    claim: list[Claim] = Field([])
    scale: dict[Scale, Overrides] = Field({})

    @field_validator("name")
    @classmethod
    def _name_can_be_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "baseline":
            allowed = "lower-case letters, digits, '-' and '_', and not 'baseline', a folder in results/"
            raise ValueError(f"must be {allowed}")
        return name

    @model_validator(mode="after")
    def _keys_have_an_effect(self) -> Self:
        given = set(self.model_fields_set).union(*(overrides.model_fields_set for overrides in self.scale.values()))
        idle = sorted(given & {"measure", "repeats", "repeats_compared", "warmup"})
        if self.trains and idle:
            raise ValueError(
                f"{' and '.join(idle)} have no effect if networks are trained (trains = true): remove them"
            )
        blocks = [*self.block, *(block for overrides in self.scale.values() for block in overrides.block or ())]
        if self.trains and any(block.question for block in blocks):
            raise ValueError("question has no effect if networks are trained (trains = true): remove it")
        if not self.trains and "evaluate" in given:
            raise ValueError("evaluate has no effect unless networks are trained (trains = true): remove it")
        return self

    @model_validator(mode="after")
    def _a_question_is_decided_in_one_way(self) -> Self:
        for blocks in (self.block, *(overrides.block or () for overrides in self.scale.values())):
            asked: dict[str, str] = {}
            for question in (question for block in blocks for question in block.question):
                if asked.setdefault(question.title, question.by) != question.by:
                    by = f"by {asked[question.title]!r} and by {question.by!r}"
                    raise ValueError(f"question {question.title!r} is decided {by}: give its blocks the same by")
        return self

    @property
    def scales(self) -> list[Scale]:
        """The scales that the suite has. Every suite has cpu, its own size."""
        return [scale for scale in Scale if scale is Scale.CPU or scale in self.scale]

    def at_scale(self, scale: Scale) -> "Suite":
        """Return the suite at `scale`, renamed so that results of small runs are not mistaken for the suite's own.

        Raise SuiteError for a scale that the file does not have.
        """
        if scale not in self.scales:
            raise SuiteError(f"suite {self.name!r} has no scale {scale.value!r}; it has {', '.join(self.scales)}")
        overrides = self.scale.get(scale, Overrides())
        changed = {key: getattr(overrides, key) for key in overrides.model_fields_set}
        if overrides.defaults is not None:
            changed["defaults"] = Axes(**overrides.defaults.over(self.defaults))
        name = self.name if scale is Scale.CPU else f"{self.name}-{scale.value}"
        return self.model_copy(update=changed | {"name": name})

    def on_device(self, device: str) -> "Suite":
        """Return the suite with every cell on `device`. Raise SuiteError for an unknown device."""
        if device not in DEVICES:
            raise SuiteError(f"--device {device}: unknown{suggestion(device, DEVICES)}")
        blocks = [block.model_copy(update={"device": None}) for block in self.block]
        defaults = self.defaults.model_copy(update={"device": [device]})
        return self.model_copy(update={"defaults": defaults, "block": blocks})


def suite_names() -> list[str]:
    """Return the names of the suites in this package."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Return the suite of that name, or the one in that TOML file, which may have any name.

    A file's suite is called like its key name, or, without one and in a copy of one of this package's files, like the
    file. Raise SuiteError, which names the file, the key, what was got and what is allowed.
    """
    path = suite_file(name_or_path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.resolve().parent != SUITES and ("name" not in table or table["name"] in suite_names()):
            table["name"] = name_of_file(path)
        return Suite.model_validate(table)
    except OSError as why:
        raise SuiteError(f"{path.name} cannot be read: {why.strerror}") from why
    except ValidationError as why:
        raise SuiteError("\n".join(f"{path.name}: {line}" for line in sentences(why, Suite, _TABLES))) from why
    except (ValueError, RecursionError) as why:  # TOML's errors, those of UTF-8, and integers of thousands of digits
        raise SuiteError(f"{path.name}: not TOML: {why}") from why


def suite_file(name_or_path: str) -> Path:
    """Return the file of the suite of that name, or the file at that path. Raise SuiteError if there is neither."""
    if name_or_path in suite_names():
        return SUITES / f"{name_or_path}.toml"
    if not os.path.isfile(name_or_path):  # False also for a name that is too long or a link in a loop
        what = f"no suite file {name_or_path!r}" if name_or_path.endswith(".toml") else f"no suite {name_or_path!r}"
        instead = "the path of a TOML file, or your own problem with --problem MODULE:FACTORY"
        raise SuiteError(f"{what}{suggestion(name_or_path, suite_names())}; or give {instead}")
    return Path(name_or_path)


def name_of_file(path: Path) -> str:
    """Return the file's name as a suite's: My Suite.toml is my-suite."""
    name = re.sub(r"[^a-z0-9_]+", "-", path.stem.lower()).strip("-_")[:LONGEST_NAME]
    if name in ("", "baseline"):  # no letters to keep, or a folder in results/
        return f"suite-{hashlib.sha256(os.fsencode(path.stem)).hexdigest()[:8]}"
    return name


LONGEST_NAME = 100
"""Characters of a file's name in that of its suite, which names folders."""


_TABLES: dict[str, type[TomlTable]] = {
    "block": Block,
    "question": Question,
    "defaults": Axes,
    "target": Target,
    "claim": Claim,
    "criterion": Criterion,
    "trial": Criterion,
    "scale": Overrides,
}
