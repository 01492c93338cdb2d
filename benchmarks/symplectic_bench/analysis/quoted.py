"""Numbers that documents quote from rows: the marks beside them, and whether they agree with the rows.

A mark is a comment right after a number, which a page does not show:

    0.64 [0.60, 0.67]<!-- = performance@05a350a; ours symplectic, width=64 / contender=paper; total_s --> of its time

It names rows, a cell and a column, separated by semicolons.

Rows: <folder in results>@<start of the commit that measured them>.
Cell: conditions <column>=<value>, on columns of summarize or on sizes, all of which must hold; "a or b" allows either.
    A condition without "=" is on `name`, contender and gradient. After " / " come the conditions in which the cell
    that it is divided by differs.
Column: one of summarize, or a metric of a trained network. " in " and one of UNITS may follow. With a word of
    OVER_CELLS before it, it is taken over all the cells chosen that have it, at least two; without one, a single cell
    must be chosen.

A comment of its own names rows and conditions for the marks below it, which then begin with that name:

    <!-- rows small: performance@05a350a; width=64 -->  344<!-- = small; ours symplectic; total_s in ms -->

A number has to be that of the row to its last digit. Zeros that end a whole number after its third digit are no digits.
The ratio of the times of two cells that took turns is the median of the ratios of their rounds (in training: of their
iterations), and is written with its limits, as paired.Ratio writes them.
"""

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from symplectic_bench.analysis.overview import geometric_mean
from symplectic_bench.analysis.paired import Ratio
from symplectic_bench.analysis.rounds import iteration_ratios, time_ratio
from symplectic_bench.analysis.summary import Line, lines_of, summarize
from symplectic_bench.rows.store import read_rows
from symplectic_bench.spec.cell import ITERATIONS, Cell

UNITS = {"ms": 1e3, "us": 1e6, "KiB": 2.0**-10, "MiB": 2.0**-20, "GiB": 2.0**-30, "%": 100.0}
"""What a value in seconds, bytes or ones is multiplied by."""

OVER_CELLS: Mapping[str, Callable[[Sequence[float]], float | None]] = {
    "least": min,
    "most": max,
    "mean": geometric_mean,
}

AXES = tuple(axis.name for axis in fields(Cell) if axis.name not in ("suite", "sizes"))

_NUMBER = r"[−-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[−-]?\d+)?"
_WRITTEN = re.compile(
    rf"(?<![\d.,])(?P<value>{_NUMBER})(?: (?P<bracket>[\[(])(?P<low>{_NUMBER})(?:, | to )(?P<high>{_NUMBER})[\])])?\**$"
)
_COMMENT = re.compile(r"<!--\s*(?:=|rows (?P<name>[\w-]+):)(?P<text>.*?)-->", re.DOTALL)


class WrongQuote(ValueError):
    """A mark that chooses no number, or a number that is not the one it chooses."""


@dataclass(frozen=True)
class Quote:
    """A number in a document and its mark; line counts from 1, start from 0 in the text."""

    document: str
    line: int
    start: int
    written: str
    mark: str


@dataclass(frozen=True)
class QuotedRows:
    """The summaries of the rows below a folder of results, each made when it is first quoted."""

    results: Path
    _known: dict[str, list[Line]] = field(default_factory=dict)

    def lines(self, source: str) -> list[Line]:
        """Return the summary of <folder>@<commit>. Raise WrongQuote unless the commit measured exactly one run."""
        if source not in self._known:
            self._known[source] = lines_of(summarize(read_rows(self._folder(source) / "rows.jsonl").rows))
        return self._known[source]

    def _folder(self, source: str) -> Path:
        name, _, commit = source.partition("@")
        files = sorted((self.results / name).glob("*/environment.json"))
        commits = {file.parent: str(json.loads(file.read_text(encoding="utf-8")).get("commit")) for file in files}
        found = [folder for folder, its in commits.items() if commit and its.startswith(commit)]
        if len(found) != 1:
            there = ", ".join(sorted({f"{name}@{its:.7}" for its in commits.values()})) or "no rows there"
            raise WrongQuote(f"{len(found)} runs are {source!r}: name one that is there ({there})")
        return found[0]


def find_quotes(text: str, document: str) -> list[Quote]:
    """Return the marked numbers of a document. Raise WrongQuote for a mark that does not follow a number."""
    names: dict[str, str] = {}
    found = []
    for comment in _COMMENT.finditer(text):
        content = " ".join(comment["text"].split())
        if comment["name"]:
            names[comment["name"]] = content
            continue
        line = text.count("\n", 0, comment.start()) + 1
        written = _WRITTEN.search(text[: comment.start()].replace("\n", " "), max(0, comment.start() - 100))
        if written is None:
            raise WrongQuote(f"{document}:{line}: no number stands right before the mark {content!r}")
        mark = _spelled_out(content, names)
        found.append(Quote(document, line, written.start(), written[0].rstrip("*"), mark))
    return found


def _spelled_out(mark: str, names: Mapping[str, str]) -> str:
    """Return the mark with the name that it begins with replaced by the rows and conditions of that name."""
    name, semicolon, rest = mark.partition(";")
    if name.strip() not in names:
        return mark
    rows, _, conditions = names[name.strip()].partition(";")
    comma = ", " if conditions.strip() else ""
    return f"{rows.strip()}; {conditions.strip()}{comma}{rest.strip()}" if semicolon else mark


def wrong_quotes(found: Sequence[Quote], rows: QuotedRows) -> list[str]:
    """Return a sentence for each number that is not that of its row: document, line, the number written, the row's."""
    wrong = []
    for quote in found:
        try:
            require_equal(quote.written, quoted_value(quote.mark, rows))
        except WrongQuote as why:
            wrong.append(f"{quote.document}:{quote.line}: {quote.written} is wrong: {why} [{quote.mark}]")
    return wrong


def corrected(text: str, document: str, rows: QuotedRows) -> str:
    """Return the document with every wrong number replaced by that of its row, written as precisely.

    Raises WrongQuote for a mark that chooses no number.
    """
    for quote in reversed(find_quotes(text, document)):
        value = quoted_value(quote.mark, rows)
        try:
            require_equal(quote.written, value)
        except WrongQuote:
            end = quote.start + len(quote.written)
            text = text[: quote.start] + _written_like(quote.written, value) + text[end:]
    return text


def quoted_value(mark: str, rows: QuotedRows) -> float | Ratio:
    """Return the number that a mark chooses, with its limits if it has some.

    Raises WrongQuote if it chooses none, or several.
    """
    parts = [part.strip() for part in mark.split(";")]
    if len(parts) != 3:
        raise WrongQuote("a mark is <rows>; <cell>; <column>")
    lines, column = rows.lines(parts[0]), _Column.parse(parts[2])
    cell, slash, divisor = parts[1].partition(" / ")
    wanted, changed = _conditions(cell), _conditions(divisor)
    unknown = [name for name in (*wanted, *changed, column.name) if not any(_has(line, name) for line in lines)]
    if unknown:
        raise WrongQuote(f"{unknown[0]!r} is no column, size or metric")
    chosen = [line for line in lines if _fulfils(line, wanted)]
    if not chosen:
        raise WrongQuote("no cell fulfils the conditions")
    if not column.over and len(chosen) > 1:
        raise WrongQuote(f"{len(chosen)} cells fulfil the conditions, among them {_labels(chosen)}")
    if slash:
        found = [column.ratio(line, _counterpart(line, changed, lines)) for line in chosen]
    else:
        found = [column.value(line) for line in chosen]
    return column.over_cells([one for one in found if one is not None])


@dataclass(frozen=True)
class _Column:
    name: str
    over: str
    factor: float

    @classmethod
    def parse(cls, text: str) -> "_Column":
        column, _, unit = text.partition(" in ")
        over, _, name = column.strip().rpartition(" ")
        if over and over not in OVER_CELLS:
            raise WrongQuote(f"{over!r} is none of {', '.join(OVER_CELLS)}")
        if unit and unit not in UNITS:
            raise WrongQuote(f"{unit!r} is none of {', '.join(UNITS)}")
        return cls(name, over, UNITS.get(unit, 1.0))

    def value(self, line: Line) -> float | Ratio | None:
        value = _of(line, self.name)
        low, high = line.get(f"{self.name}_low"), line.get(f"{self.name}_high")
        if low is not None and high is not None:
            return Ratio(value, low, high, int(line.get(f"{self.name}_rounds") or 0))
        return None if value is None else value * self.factor

    def ratio(self, line: Line, other: Line | None) -> float | Ratio | None:
        if other is None:
            return None
        if self.name == "total_s" and (found := _ratio_of_times(line, other)):
            return found
        value, divisor = _of(line, self.name), _of(other, self.name)
        return None if value is None or not divisor else self.factor * value / divisor

    def over_cells(self, found: Sequence[float | Ratio]) -> float | Ratio:
        if not found:
            raise WrongQuote(f"no cell chosen has {self.name!r}")
        if not self.over:
            return found[0]
        if len(found) < 2:
            raise WrongQuote(f"{self.over!r} is of one cell: leave it out")
        value = OVER_CELLS[self.over]([one.median if isinstance(one, Ratio) else one for one in found])
        assert value is not None, "every cell has the value"
        return value


def _ratio_of_times(line: Line, other: Line) -> Ratio | None:
    """Return the ratio of the times of two cells that took turns; iterations are no rounds, so they count as none."""
    if not line["losses"]:
        return time_ratio(line, other)
    ratios = iteration_ratios(line, other)
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), rounds=0) if ratios else None


Conditions = Mapping[str, Sequence[str]]
"""The values allowed, by column or size."""


def _conditions(text: str) -> Conditions:
    wanted: dict[str, list[str]] = {}
    for condition in filter(None, (part.strip() for part in text.split(","))):
        key, equals, values = condition.partition("=")
        wanted[key.strip() if equals else "name"] = [one.strip() for one in (values or key).split(" or ")]
    return wanted


def _fulfils(line: Line, wanted: Conditions) -> bool:
    return all(any(_is(_of(line, key), one) for one in allowed) for key, allowed in wanted.items())


def _is(value: object, written: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(written) == float(value)
        except ValueError:
            return False
    return str(value) == written


def _has(line: Line, name: str) -> bool:
    return any(name in named for named in _named(line))


def _of(line: Line, name: str) -> Any:
    """Return a cell's size, column or metric of this name, None if it has none."""
    return next((named[name] for named in _named(line) if name in named), None)


def _named(line: Line) -> tuple[Mapping[str, Any], ...]:
    return line["sizes"], line, line["metrics"] or {}


def _counterpart(line: Line, changed: Conditions, lines: Sequence[Line]) -> Line | None:
    """Return the cell that differs from a line as the conditions say, and else only in training length, or None."""
    free = {ITERATIONS, *changed, *(("contender", "gradient") if "name" in changed else ())}
    same = {axis: line[axis] for axis in AXES if axis not in free}
    same |= {name: size for name, size in line["sizes"].items() if name not in free}
    alike = [other for other in lines if all(_of(other, key) == its for key, its in same.items())]
    found = [other for other in alike if _fulfils(other, changed)]
    if len(found) > 1:
        raise WrongQuote(f"{len(found)} cells fulfil the conditions of the divisor, among them {_labels(found)}")
    return found[0] if found else None


def _labels(lines: Sequence[Line]) -> str:
    return "; ".join(f"{line['name']} of {line['group']}" for line in lines[:2])


def require_equal(written: str, value: float | Ratio) -> None:
    """Raise WrongQuote unless a written number is the value to its last digit, and has the limits that it has."""
    match = _WRITTEN.fullmatch(written)
    assert match is not None, "a quote is written so"
    limits = isinstance(value, Ratio)
    pairs = [(match["value"], value.median if limits else value)]
    if limits != bool(match["bracket"]) or (limits and (match["bracket"] == "(") != value.has_interval):
        raise WrongQuote(f"the row says {value if limits else f'{value:.4g}, without limits'}")
    if limits:
        pairs += [(match["low"], value.low), (match["high"], value.high)]
    if not all(_rounds_to(number, exact) for number, exact in pairs):
        raise WrongQuote(f"the row says {value if limits else f'{value:.6g}'}")


def _rounds_to(written: str, value: float) -> bool:
    number = Decimal(written.replace(",", "").replace("−", "-"))
    place = number.as_tuple().exponent
    assert isinstance(place, int), "the number is finite"
    if place == 0 and number % 10 == 0:
        place = max(0, number.adjusted() - 2)  # 3400 has three digits
    return abs(float(number) - value) <= 0.5000001 * 10.0**place


def _written_like(written: str, value: float | Ratio) -> str:
    """Return a value, with its limits if it has some, as precise as a written number."""
    match = _WRITTEN.fullmatch(written)
    assert match is not None, "a quote is written so"
    if not isinstance(value, Ratio):
        return _number_like(match["value"], value)
    median, low, high = (_number_like(match["value"], one) for one in (value.median, value.low, value.high))
    return f"{median} ({low} to {high})" if value.has_interval else f"{median} [{low}, {high}]"


def _number_like(written: str, value: float) -> str:
    """Return a number with as many decimals as a written one, and with two digits at the least."""
    mantissa, power, _ = written.partition("e")
    _, point, decimals = mantissa.partition(".")
    place = math.floor(math.log10(abs(value))) if value else 0  # that of the first digit
    if power or (value and place < -4):
        mantissa, _, exponent = f"{value:.{len(decimals) or 1}e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    if point or place < 0:
        return f"{value:,.{max(len(decimals), 1 - place)}f}"
    return f"{round(value, min(0, 2 - place)):,.0f}" if place >= 3 else f"{value:.0f}"
