"""The expansion of a suite into cells, in a fixed order, and their selection by --only."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any

from symplectic_bench.spec.cell import Cell, Size, is_users_problem
from symplectic_bench.spec.question import AskedQuestion
from symplectic_bench.spec.suggestion import suggestion
from symplectic_bench.spec.suite import Block, Suite, SuiteError


class NothingLeft(ValueError):
    """No cell of a suite is left after --only."""


@dataclass(frozen=True)
class Vocabulary:
    """The names that cells may use.

    `decline` returns why a cell is impossible on any machine, or None; `no_device` why it is on this one.
    """

    problems: Mapping[str, Mapping[str, Size]]  # name -> its sizes with their defaults
    methods: Collection[str]
    decline: Callable[[Cell], str | None]
    methods_elsewhere: Mapping[str, str] = field(default_factory=dict)  # other libraries' names of the methods
    no_device: Callable[[Cell], str | None] = lambda cell: None


def expand(suite: Suite, vocabulary: Vocabulary) -> list[Cell]:
    """Return the suite's cells. Raise SuiteError for unknown names, impossible or duplicate cells, or too many.

    It stops at the first cell too many: a product of a few axes may have more cells than memory can hold.
    """
    cells: dict[str, Cell] = {}
    for cell in generate(suite, vocabulary):
        if cell.id in cells:
            raise SuiteError(f"{suite.name}: two blocks contain the same cell: {cell.group_label}, {cell.name}")
        if len(cells) == suite.max_cells:
            raise SuiteError(
                f"{suite.name}: more cells than its max_cells = {suite.max_cells}: shorten an axis, or raise max_cells"
            )
        cells[cell.id] = cell
    return list(cells.values())


def generate(suite: Suite, vocabulary: Vocabulary) -> Iterator[Cell]:
    """Yield the cells of each block in the file's order, contender and gradient varying fastest."""
    for number, block in enumerate(suite.block):
        where = f"{suite.name}: block[{number}]"
        for axes in _settings(block, suite, vocabulary, where):
            for contender, gradients in block.contenders.items():
                for gradient in gradients:
                    cell = Cell(suite=suite.name, contender=contender, gradient=gradient, **axes)
                    if reason := vocabulary.decline(cell):
                        raise SuiteError(f"{where}.contenders: {cell.name} on {cell.group_label}: {reason}")
                    yield cell


def asked_questions(suite: Suite, vocabulary: Vocabulary) -> list[AskedQuestion]:
    """Return the questions of the suite's blocks, in the file's order, with the groups that answer each."""
    asked: dict[str, AskedQuestion] = {}
    for block in suite.block:
        groups = [cell.group_id for cell in generate(suite.model_copy(update={"block": [block]}), vocabulary)]
        for question in block.question:
            before = asked[question.title].ours if question.title in asked else {}
            ours = {**before, **dict.fromkeys(groups, question.ours)}
            asked[question.title] = AskedQuestion(question.title, question.by, ours)
    return list(asked.values())


def _settings(block: Block, suite: Suite, vocabulary: Vocabulary, where: str) -> Iterator[dict[str, Any]]:
    """Yield every combination of a block's axes except contender and gradient."""
    for method in block.method:
        if method not in vocabulary.methods:
            near = suggestion(method, vocabulary.methods, vocabulary.methods_elsewhere)
            raise SuiteError(f"{where}.method: unknown {method!r}{near}")
    shared = block.over(suite.defaults)
    for problem, *values in product(block.problem, *shared.values()):
        sizes = _sizes(problem, vocabulary, where)
        for method, (rtol, atol, steps) in product(block.method, block.accuracies):
            accuracy = {"rtol": rtol, "atol": atol, "steps": steps}
            chosen = dict(zip(shared, values, strict=True))
            yield {"problem": problem["name"], "sizes": sizes, "method": method} | accuracy | chosen


def _sizes(problem: Mapping[str, Any], vocabulary: Vocabulary, where: str) -> tuple[tuple[str, Size], ...]:
    """Return all sizes, with defaults filled in, so that two spellings of one problem give one cell."""
    name = problem["name"]
    if name not in vocabulary.problems:
        raise SuiteError(f"{where}.problem: unknown {name!r}{suggestion(name, vocabulary.problems)}")
    defaults = vocabulary.problems[name]
    given = {size: value for size, value in problem.items() if size != "name"}
    for size, value in given.items():
        if size not in defaults:
            raise SuiteError(f"{where}.problem: {name!r} has no size {size!r}{suggestion(size, defaults)}")
        what = f"{where}.problem: size {size!r} of {name!r}"
        if isinstance(defaults[size], float) and isinstance(value, int):
            given[size] = float(value)
        elif type(value) is not type(defaults[size]):
            raise SuiteError(f"{what} must have the type of its default, {defaults[size]!r}; got {value!r}")
        least = None if is_users_problem(name) else _least(size, defaults[size])
        if least is not None and float(value) < least:
            raise SuiteError(f"{what} must be at least {least:g}; got {value!r}")
    return tuple(sorted((dict(defaults) | given).items()))


def _least(size: str, default: Size) -> float | None:
    """Return the least value of a standard problem's size, or None if it may have any."""
    if isinstance(default, int) and default > 0:  # a number of points, layers, outputs, ...
        return 1
    return SHORTEST if size == "end" else None


SHORTEST = 1e-100
"""The earliest end of a problem, which starts at time 0."""


def parse_only(filters: Sequence[str]) -> dict[str, set[str]]:
    """Parse ["gradient=aca,backprop"] to {"gradient": {"aca", "backprop"}}. Raise SuiteError for any other form."""
    only: dict[str, set[str]] = {}
    for text in filters:
        axis, _, values = text.partition("=")
        chosen = {value.strip() for value in values.split(",") if value.strip()}
        if not axis.strip() or not chosen:
            raise SuiteError(f"--only takes AXIS=VALUE[,VALUE], such as gradient=aca,symplectic; got {text!r}")
        only.setdefault(axis.strip(), set()).update(chosen)
    return only


def narrow(cells: Sequence[Cell], only: Mapping[str, Collection[str]]) -> list[Cell]:
    """Return the cells that have one of the given values on every axis in `only`. A size is an axis too.

    Raise SuiteError for an axis that no cell has, NothingLeft for a value or a combination that no cell has.
    """
    every = [axes(cell) for cell in cells]
    for axis, wanted in only.items():
        present = {str(of[axis]): of[axis] for of in every if axis in of}
        if not present:
            known = sorted({name for of in every for name in of})
            raise SuiteError(f"--only {axis}=...: no such axis{suggestion(axis, known)}")
        for value in wanted:
            if not any(_same(value, one) for one in present.values()):
                raise NothingLeft(f"--only {axis}={value}: no cell has it{suggestion(value, present)}")
    left = [
        cell
        for cell, of in zip(cells, every, strict=True)
        if all(axis in of and any(_same(value, of[axis]) for value in wanted) for axis, wanted in only.items())
    ]
    if not left:
        given = " ".join(f"{axis}={','.join(sorted(wanted))}" for axis, wanted in only.items())
        raise NothingLeft(f"--only {given}: no cell has all of this")
    return left


def axes(cell: Cell) -> dict[str, Any]:
    """Return the cell's axes and sizes by name."""
    own = {f.name: getattr(cell, f.name) for f in fields(Cell) if f.name not in ("suite", "sizes")}
    return cell.sizes_dict | own


def _same(text: str, value: Any) -> bool:
    """Return whether the text denotes the value; numbers compare as numbers, so that 1e-6 is 0.000001."""
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == str(value)
