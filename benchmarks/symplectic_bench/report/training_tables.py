"""Tables of trained networks: one row per gradient, one group of columns per setting."""

import math
import statistics
from collections.abc import Callable, Sequence

import pandas as pd

from symplectic_bench.analysis.summary import LEADER, OVER_LEADER, Line, display_place, lines_of
from symplectic_bench.data.published import SYNTHETIC
from symplectic_bench.report.numerals import MISSING, count, mebibytes, ratio_with_limits, scientific, three_digits
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.cell import ITERATIONS
from symplectic_bench.spec.status import Status

SIDE_BY_SIDE = 3
"""The largest number of settings in one table; the others go into further tables."""

CAPTION = (
    "s/iteration and f calls, forward and backward: medians over the first iterations that all gradients have in"
    " common. x symplectic: the median ratio to symplectic's time of the same iteration [the smallest, the largest], of"
    " all warm ones that both have. Iterations of one turn are no independent rounds, so times have no verdict. MiB:"
    " peak of live tensors in the {measured} iteration, above those of network and data. losses off: the largest"
    " relative difference of the losses of the first iterations from symplectic's. The quality of the trained network"
    " is given for the longest trainings: the median over several seeds, with the smallest and the largest."
)


def training_tables(
    frame: pd.DataFrame,
    where: str,
    name: str = "training",
    title: str = "Networks trained",
    notes: Sequence[str] = (),
) -> list[Table]:
    """Return tables of at most SIDE_BY_SIDE settings each, called name, name-2, .., with the notes below each.

    The list is empty without rows.
    """
    lines = lines_of(frame)
    labels = setting_labels(lines)
    settings = {label: [line for line in lines if line["setting_id"] == id] for id, label in labels.items()}
    if not settings:
        return []
    parts = math.ceil(len(settings) / SIDE_BY_SIDE)
    side_by_side = math.ceil(len(settings) / parts)  # 4 settings are 2 and 2
    tables = []
    for number, first in enumerate(range(0, len(settings), side_by_side), start=1):
        some = dict(list(settings.items())[first : first + side_by_side])
        own = name if number == 1 else f"{name}-{number}"
        more = f" ({number} of {parts})" if parts > 1 else ""
        tables.append(_table(own, f"{title}{more}", some, where, notes))
    return tables


NAMING = ("data", "equation")
"""Sizes that name the data or the equation that is learned."""

UNLABELLED = (*NAMING, ITERATIONS, "test_rows", "test_trace")
"""Sizes left out of the labels of settings."""


def setting_labels(lines: Sequence[Line]) -> dict[str, str]:
    """Return the label of each setting_id: the data, equation or task, and what distinguishes settings of one name."""
    first = {line["setting_id"]: line for line in reversed(lines)}
    ordered = dict.fromkeys(line["setting_id"] for line in lines)
    alike: dict[str, list[Line]] = {}
    for id in ordered:
        alike.setdefault(_name(first[id]), []).append(first[id])
    return {id: ", ".join([_name(first[id]), *_differences(first[id], alike[_name(first[id])])]) for id in ordered}


def _name(line: Line) -> str:
    return next((str(line["sizes"][key]) for key in NAMING if key in line["sizes"]), line["problem"])


def _differences(line: Line, others: Sequence[Line]) -> list[str]:
    """Return this line's values of the axes and sizes in which lines with its name differ."""
    parts = [str(line[axis]) for axis in ("problem", "method", "dtype") if len({other[axis] for other in others}) > 1]
    for axis in ("rtol", "steps", "batch", "threads", "device"):
        if len({other[axis] for other in others}) > 1 and line[axis] is not None:
            parts.append(f"{axis} {line[axis]:g}" if isinstance(line[axis], float) else f"{axis} {line[axis]}")
    sizes = [size for size in line["sizes"] if size not in UNLABELLED]
    return parts + [f"{s}={line['sizes'][s]}" for s in sizes if len({other["sizes"].get(s) for other in others}) > 1]


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
    section = Section("", tuple(shown), (*notes, *_remarks(settings)))
    return Table(
        name, title, f"{_caption(every)} {_trained(every)}", where, tuple(headings), (section,), data, tuple(groups)
    )


def _caption(lines: Sequence[Line]) -> str:
    on_card = {line["device"] == "cuda" for line in lines}
    return CAPTION.format(measured="first" if on_card != {True} else "second")


def _columns(lines: Sequence[Line]) -> list[Column]:
    metrics = dict.fromkeys(key for line in lines for key in line["metrics"] or {})
    names = {line["name"] for line in lines}
    of_name = [{line["seed"] for line in lines if line["name"] == name} for name in names]
    shared = set.intersection(*of_name) or set.union(*of_name)

    def metric(key: str) -> Callable[[Sequence[Line]], str]:
        def show(seeds: Sequence[Line]) -> str:
            known = [line for line in seeds if line["metrics"]]
            entry = _spread([line["metrics"][key] for line in known])
            one_of_several = len(known) == 1 and max(map(len, of_name)) > 1  # so that it is not taken for a median
            return f"{entry} (seed {known[0]['seed']})" if one_of_several else entry

        return show

    def cost(key: str, form: Callable[[float | None], str]) -> Callable[[Sequence[Line]], str]:
        """Return the median over the seeds that all gradients have, and the status of a failed one."""

        def show(seeds: Sequence[Line]) -> str:
            own = [line for line in seeds if line["seed"] in shared]
            known = [line[key] for line in own if line[key] is not None]
            failed = [str(line["status"]) for line in own if line["status"] != Status.OK]
            entry = form(statistics.median(known)) if known else MISSING
            return " ".join([*([entry] if known or not failed else []), *failed[:1]])

        return show

    def over_leader(seeds: Sequence[Line]) -> str:
        return _over_leader([line for line in seeds if line["seed"] in shared])

    measured: list[Column] = [
        ("MiB", cost("peak_tensor_bytes", mebibytes)),
        ("s/iteration", cost("total_s", three_digits)),
        *([("x symplectic", over_leader)] if any(line[OVER_LEADER[0]] is not None for line in lines) else []),
        ("f calls", cost("f_calls", count)),
        ("losses off", cost("losses_off", _or_zero)),
    ]
    return [*((key.replace("_", " "), metric(key)) for key in metrics), *measured]


def _or_zero(value: float | None) -> str:
    return "0" if value == 0 else scientific(value)


def _over_leader(lines: Sequence[Line]) -> str:
    """Return the median over the seeds, with the extremes over all their iterations."""
    known = [[line[key] for key in OVER_LEADER] for line in lines if line[OVER_LEADER[0]] is not None]
    if not known:
        return MISSING
    medians, least, most = zip(*known, strict=True)
    return ratio_with_limits(statistics.median(medians), min(least), max(most), is_interval=False)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    middle = three_digits(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{three_digits(min(values))}, {three_digits(max(values))}]"


def _steps(lines: Sequence[Line]) -> str:
    known = [int(line["steps_accepted"]) for line in lines if line["name"] == LEADER and line["steps_accepted"]]
    return MISSING if not known else str(min(known)) if min(known) == max(known) else f"{min(known)} to {max(known)}"


def _trained(lines: Sequence[Line]) -> str:
    """Describe the training: method, accuracy, iterations, seeds, and the size of the test set."""
    long = sorted({int(line["sizes"][ITERATIONS]) for line in lines})
    first = lines[0]
    accuracy = (
        f"{int(first['steps'])} steps" if first["rtol"] is None else f"atol {first['atol']:g}, rtol {first['rtol']:g}"
    )
    batches = sorted({int(line["batch"]) for line in lines})
    methods = ", ".join(dict.fromkeys(line["method"] for line in lines))
    tested = sorted({int(line["sizes"]["test_rows"]) for line in lines if "test_rows" in line["sizes"]})
    return (
        f"{methods}, {accuracy}, {first['dtype']}, batch {' and '.join(map(str, batches))}, {int(first['threads'])}"
        f" threads; {' or '.join(map(str, long))} iterations; {_seeds(lines)}."
        + _sizes(lines)
        + (f" Tested on {' or '.join(map(str, tested))} rows at most." if tested else "")
        + " N: the forward steps of an iteration, over all fields that it solves."
        + _data({str(line["sizes"]["data"]) for line in lines if "data" in line["sizes"]})
    )


def _sizes(lines: Sequence[Line]) -> str:
    """Describe the sizes that all lines share, and say where unnamed data come from."""
    first = lines[0]["sizes"]
    shared = [s for s in first if s not in UNLABELLED and all(line["sizes"].get(s) == first[s] for line in lines)]
    said = f" {', '.join(f'{size}={first[size]}' for size in shared)}." if shared else ""
    return said + ("" if any("data" in line["sizes"] for line in lines) else " The data are generated by the suite.")


def _data(names: set[str]) -> str:
    """Say which data are not the published ones."""
    said = ""
    if any(name.startswith(SYNTHETIC) for name in names):
        said += f" {SYNTHETIC}..: a mixture of five normal distributions of that table's dimension, in its place."
    if "digits" in names:
        said += " digits: scikit-learn's, 8 x 8 pixels."
    return said


def _seeds(lines: Sequence[Line]) -> str:
    of_name = {
        name: sorted({int(c["seed"]) for c in lines if c["name"] == name}) for name in {c["name"] for c in lines}
    }
    fewest, most = min(of_name.values(), key=len), max(of_name.values(), key=len)
    if fewest == most:
        return f"seeds {', '.join(map(str, most))}"
    names = sorted((name for name, seeds in of_name.items() if seeds == most), key=display_place)
    several = f"seeds {', '.join(map(str, most))} of {' and '.join(names)} where a spread is given"
    return f"{several}, else seed {', '.join(map(str, fewest))}"


def _remarks(settings: dict[str, list[Line]]) -> list[str]:
    """Return notes on failures, with the setting and the reason, and remarks on the rest."""
    found: dict[str, list[str]] = {}
    for label, lines in settings.items():
        for line in lines:
            if line["status"] != Status.OK:
                found.setdefault(f" on {label}: {line['status']}: {line['reason']}", []).append(line["name"])
            elif line["reason"]:
                found.setdefault(f": {line['reason']}", []).append(line["name"])
    return [f"{', '.join(dict.fromkeys(names))}{remark}" for remark, names in found.items()]
