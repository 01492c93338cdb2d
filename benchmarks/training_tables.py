"""Trained networks as tables: gradients in rows, what was trained in groups of columns."""

import statistics
from collections.abc import Callable, Sequence

import pandas as pd

from benchmarks.cell import ITERATIONS
from benchmarks.numerals import count, digits, mebibytes, scientific
from benchmarks.record import Status
from benchmarks.summary import LEADER, Line, display_place, lines_of
from benchmarks.typesetting import MISSING, Section, Table

ABREAST = 3
"""Settings that stand beside each other; more make a table more."""

CAPTION = (
    "Medians over the first iterations, which all gradients have in common: the time of an iteration, calls of f"
    " forward and backward, and the highest live bytes of tensors above those of network and data, in the iteration"
    " after them. losses off: by how much the losses of these iterations differ from symplectic's, relatively, at most."
    " How good the network is in the end is told of those that were trained on; of several seeds the median, the least"
    " and the largest."
)


def training_tables(
    frame: pd.DataFrame,
    where: str,
    name: str = "training",
    title: str = "Networks trained",
    notes: Sequence[str] = (),
) -> list[Table]:
    """Tables of at most ABREAST settings each, called name, name-2, ..; notes stand below each."""
    lines = lines_of(frame)
    settings: dict[str, list[Line]] = {}
    for line in lines:
        settings.setdefault(setting_label(line, lines), []).append(line)
    labels = list(settings)
    tables = []
    for number, first in enumerate(range(0, max(1, len(labels)), ABREAST), start=1):
        some = {label: settings[label] for label in labels[first : first + ABREAST]}
        own = name if number == 1 else f"{name}-{number}"
        more = f" ({number})" if len(labels) > ABREAST else ""
        tables.append(_table(own, f"{title}{more}", some, where, notes))
    return tables


def setting_label(line: Line, lines: Sequence[Line]) -> str:
    """What was trained, by what tells it from the other lines: its data or equation, its method."""
    sizes = line["sizes"]
    label = next((str(sizes[key]) for key in ("data", "equation") if key in sizes), line["problem"])
    tasks = {other["problem"] for other in lines}
    parts = [label] if len(tasks) == 1 else [f"{line['problem']} {label}" if label != line["problem"] else label]
    if len({other["method"] for other in lines}) > 1:
        parts.append(line["method"])
    if len({other["rtol"] for other in lines}) > 1:
        parts.append(f"rtol {line['rtol']:g}")
    return ", ".join(parts)


Column = tuple[str, Callable[[Sequence[Line]], str]]


def _table(name: str, title: str, settings: dict[str, list[Line]], where: str, notes: Sequence[str]) -> Table:
    names = sorted({line["name"] for lines in settings.values() for line in lines}, key=display_place)
    headings, groups, columns = ["gradient"], [("", 1)], []
    for label, lines in settings.items():
        own = _columns(lines)
        headings += [heading for heading, _ in own]
        groups.append((f"{label}, N = {_steps(lines)}", len(own)))
        columns.append((lines, own))
    shown = []
    for gradient in names:
        entries = [gradient]
        for lines, own in columns:
            seeds = [line for line in lines if line["name"] == gradient]
            entries += [show(seeds) for _, show in own]
        shown.append(tuple(entries))
    every = [line for lines in settings.values() for line in lines]
    data = tuple({k: v for k, v in line.items() if not isinstance(v, list)} for line in every)
    section = Section("", tuple(shown), (*notes, *_failures(every)))
    return Table(name, title, f"{CAPTION} {_trained(every)}", where, tuple(headings), (section,), data, tuple(groups))


def _columns(lines: Sequence[Line]) -> list[Column]:
    metrics = dict.fromkeys(key for line in lines for key in line["metrics"] or {})

    def metric(key: str) -> Callable[[Sequence[Line]], str]:
        return lambda seeds: _spread([line["metrics"][key] for line in seeds if line["metrics"]])

    measured: list[Column] = [
        ("MiB", _of("peak_tensor_bytes", mebibytes)),
        ("s/iteration", _of("total_s", digits)),
        ("f calls", _of("f_calls", count)),
        ("losses off", _of("losses_off", scientific)),
    ]
    return [*((key.replace("_", " "), metric(key)) for key in metrics), *measured]


def _of(key: str, form: Callable[[float | None], str]) -> Callable[[Sequence[Line]], str]:
    """The median over seeds; what became of it where there is none."""

    def show(seeds: Sequence[Line]) -> str:
        known = [line[key] for line in seeds if line[key] is not None]
        failed = [str(line["status"]) for line in seeds if line["status"] != Status.OK]
        return form(statistics.median(known)) if known else failed[0] if failed else MISSING

    return show


def _spread(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    middle = digits(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{digits(min(values))}, {digits(max(values))}]"


def _steps(lines: Sequence[Line]) -> str:
    known = [int(line["steps_accepted"]) for line in lines if line["name"] == LEADER and line["steps_accepted"]]
    return MISSING if not known else str(min(known)) if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _trained(lines: Sequence[Line]) -> str:
    """For how long, with which seeds, and how."""
    trained: dict[str, set[int]] = {}
    for line in lines:
        trained.setdefault(line["name"], set()).add(int(line["sizes"][ITERATIONS]))
    long = {n for numbers in trained.values() for n in numbers}
    seeds = sorted({int(line["seed"]) for line in lines})
    first = lines[0]
    accuracy = (
        f"{int(first['steps'])} steps" if first["rtol"] is None else f"atol {first['atol']:g}, rtol {first['rtol']:g}"
    )
    batches = sorted({int(line["batch"]) for line in lines})
    methods = ", ".join(dict.fromkeys(line["method"] for line in lines))
    return (
        f"{methods}, {accuracy}, {first['dtype']}, batch {' and '.join(map(str, batches))}, {int(first['threads'])}"
        f" threads; {' or '.join(map(str, sorted(long)))} iterations; seeds {', '.join(map(str, seeds))}."
    )


def _failures(lines: Sequence[Line]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line["status"] != Status.OK:
            reasons.setdefault(f"{line['status']}: {line['reason']}", []).append(line["name"])
    return [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]
