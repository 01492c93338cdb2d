"""The tables of a summary: their columns, formats and captions."""

from collections.abc import Sequence

import pandas as pd

from symplectic_bench.analysis.claims import ClaimResult, target_headline
from symplectic_bench.analysis.criteria import CriterionOutcome, Evaluation
from symplectic_bench.analysis.memory_order import ORDERED, memory_order
from symplectic_bench.analysis.overview import overview
from symplectic_bench.analysis.paired import FEWEST_ROUNDS
from symplectic_bench.analysis.summary import LAST_PLACE, LEADER, PAIRED, PEER, Line, lines_of, ratio
from symplectic_bench.contenders.gradient_records import gradient_record
from symplectic_bench.report.columns import Column, measured_columns, notes, numbers, shown_status, texts
from symplectic_bench.report.comparisons import (
    statistics_words,
    with_verdicts,
    with_written_ratios,
    without_written,
)
from symplectic_bench.report.numerals import count, mebibytes, milliseconds, scientific, text, three_digits, yes_no
from symplectic_bench.report.question_tables import question_tables
from symplectic_bench.report.typesetting import Section, Table
from symplectic_bench.spec.question import AskedQuestion

# The tables.

GRADIENTS: tuple[Column, ...] = (
    ("gradient", "name", text),
    ("status", "shown_status", text),
    ("error, discrete", "error_discrete", scientific),
    ("in ulp", "error_discrete_ulp", three_digits),
    ("error, true", "error_true", scientific),
    ("steps", "steps_accepted", count),
    ("f calls", "f_calls", count),
    ("VJPs", "vjps", count),
    ("time, ms", "total_s", milliseconds),
    ("x floor", "written_time_over_floor", text),
    ("x peer", "written_time_over_peer", text),
    ("against the peer", "verdict", text),
    ("x captured floor", "time_over_captured_floor", three_digits),
    ("tensors, MiB", "peak_tensor_bytes", mebibytes),
    ("x floor", "memory_over_floor", three_digits),
    ("x peer", "memory_over_peer", three_digits),
    ("RSS, MiB", "peak_rss_bytes", mebibytes),
)

OVERVIEW: tuple[Column, ...] = (
    ("gradient", "name", text),
    ("cells", "cells", count),
    ("ok", "ok", count),
    ("worst discrete error, float64", "worst_error_discrete_float64", scientific),
    ("float32", "worst_error_discrete_float32", scientific),
    ("time x floor", "written_mean_time_over_floor", text),
    ("time x captured floor", "mean_time_over_captured_floor", three_digits),
    ("time x peer", "written_mean_time_over_peer", text),
    ("memory x floor", "mean_memory_over_floor", three_digits),
    ("memory x peer", "mean_memory_over_peer", three_digits),
    ("compared", "compared", count),
)

ORDERING: tuple[Column, ...] = (
    ("group", "group", text),
    ("state D, KiB", "state_bytes", lambda value: three_digits(value, 1024)),
    ("graph A, KiB", "graph_bytes", lambda value: three_digits(value, 1024)),
    ("A >= 4 D", "graph_of_4_states", yes_no),
    ("N", "steps_accepted", count),
    ("s", "stages", count),
    *((f"{name} predicted, MiB", f"predicted_{name}_bytes", mebibytes) for name in ORDERED),
    *((f"{name} measured, MiB", f"measured_{name}_bytes", mebibytes) for name in ORDERED),
    ("predicted order", "predicted_order", text),
    ("measured order", "measured_order", text),
    ("held", "held", yes_no),
    ("note", "reason", text),
)

REACHED: tuple[Column, ...] = (
    ("point", "point", count),
    ("target", "target", text),
    ("limit", "wanted", text),
    ("worst", "worst", three_digits),
    ("met", "met", count),
    ("of", "cells", count),
    ("outcome", "outcome", text),
)

TARGETS: tuple[Column, ...] = (
    ("group", "group", text),
    ("cell", "cell", text),
    ("measured", "written_measured", text),
    ("limit", "wanted", text),
    ("outcome", "outcome", text),
    ("note", "note", text),
)


TRUTH: tuple[Column, ...] = (
    ("problem", "problem", text),
    ("rtol", "rtol", lambda value: f"{value:g}"),
    ("steps", "steps_accepted", count),
    ("reference", "error_true_reference", text),
    ("its error", "error_true_bar", scientific),
    ("exact: discrete, worst", "discrete", scientific),
    ("in ulp", "discrete_ulp", three_digits),
    ("exact: true", "exact", scientific),
    ("continuous: true", "continuous", scientific),
    ("continuous over exact", "continuous_over_exact", three_digits),
    ("torchdiffeq backprop: true", "torchdiffeq_backprop", scientific),
    ("torchdiffeq continuous: true", "torchdiffeq_continuous", scientific),
    ("solution, tolerances off", "forward_error", three_digits),
)


def all_tables(
    frame: pd.DataFrame, where: str, targets: Sequence[ClaimResult] = (), questions: Sequence[AskedQuestion] = ()
) -> list[Table]:
    """Return every table of a summary. `where` names the machine and ends each caption.

    Tables of targets come first, if there are any, then those of questions, whose groups the table of all gradients
    leaves out. The order of memory needs the three gradients that it compares.
    """
    tables = [reached_table(targets, where), targets_table(targets, where)] if targets else []
    lines = lines_of(frame)
    if questions and lines:
        tables += question_tables(lines, where, questions)
        asked = [group for question in questions for group in question.ours]
        others = pd.DataFrame(frame[~frame["group_id"].isin(asked)])
        return tables + ([gradients_table(others, where)] if len(others) else [])
    if any(line["rtol"] is not None for line in lines) and all(line["total_s"] is None for line in lines):
        tables.append(truth_table(frame, where))
    tables += [overview_table(frame, where), gradients_table(frame, where)]
    ordered = {line["gradient"] for line in lines if line["contender"] == "ours"}.issuperset(ORDERED)
    return [*tables, ordering_table(frame, where)] if ordered or not lines else tables


def reached_table(targets: Sequence[ClaimResult], where: str) -> Table:
    """Return one line per target."""
    caption = (
        "Every target with the worst of its cells. A target is met if all its cells meet it, and not measured if some"
        " were not measured and the others meet it. The numbers are those of the list of targets."
    )
    lines: list[Line] = [
        {
            "point": target.claim.point,
            "target": target.claim.name,
            "wanted": result.criterion.limit,
            "worst": result.worst,
            "met": len(result.having(CriterionOutcome.MET)),
            "cells": len(result.evaluations),
            "outcome": str(result.outcome),
        }
        for target in targets
        for result in target.criteria
    ]
    return _table("reached", "Targets at a glance", caption, where, REACHED, lines)


def targets_table(targets: Sequence[ClaimResult], where: str) -> Table:
    """Return a section for each target, with a line for each of its cells."""
    caption = (
        "Each target with the value of every cell. A ratio of times has (its 95 % bootstrap interval) from"
        f" {FEWEST_ROUNDS} rounds on, else [the smallest, the largest]; the outcome is that of the median. Sizes that"
        " all cells of a problem share are in the other tables."
    )
    sections, data = [], []
    for target in targets:
        (result,) = target.criteria
        lines = [_target_line(target, evaluation) for evaluation in result.evaluations]
        heading = f"{target_headline(target)}: {result.outcome}"
        sections.append(Section(heading, tuple(texts(line, TARGETS) for line in lines)))
        data += map(without_written, lines)
    headings = tuple(column[0] for column in TARGETS)
    return Table("targets", "Targets, cell by cell", caption, where, headings, tuple(sections), tuple(data))


def _target_line(target: ClaimResult, evaluation: Evaluation) -> Line:
    line: Line = {"point": target.claim.point, "target": target.claim.name, "group": evaluation.group or None}
    line |= {"cell": evaluation.name or None, "measured": evaluation.value, "wanted": evaluation.criterion.limit}
    for key in ("low", "high", "rounds"):
        line[f"measured_{key}"] = getattr(evaluation.ratio, key, None)
    line |= {"outcome": str(evaluation.outcome), "note": evaluation.note or None}
    return with_written_ratios(line, ["measured"])


def overview_table(frame: pd.DataFrame, where: str) -> Table:
    """Return one line per contender and gradient, over all groups."""
    lines = [with_written_ratios(line, [f"mean_{name}" for name in PAIRED]) for line in overview(frame)]
    caption = (
        "Worst discrete errors, and geometric means over all groups; those of times with a 95 % interval, which is that"
        f" of these groups and not of others, if all were timed in {FEWEST_ROUNDS} rounds or more. x peer: as a"
        f" multiple of {PEER} in the same group (in the `compared` groups that have it). x floor: as a multiple of the"
        " bare network calls that this gradient makes, and of the bytes of its own formula, which shows how close the"
        " code is to its method, not which method is leaner. x captured floor: of the same calls replayed from a CUDA"
        " graph."
    )
    columns, data = measured_columns(OVERVIEW, lines), [without_written(line) for line in lines]
    section = Section("", tuple(texts(line, columns) for line in lines))
    headings = tuple(column[0] for column in columns)
    return Table("overview", "All gradients at a glance", caption, where, headings, (section,), tuple(data))


def truth_table(frame: pd.DataFrame, where: str) -> Table:
    """Return one line per solve: the errors of the exact gradients and of the continuous adjoint, side by side."""
    caption = (
        "Errors relative to autograd through the recorded steps (discrete: the worst of the exact gradients that take"
        " the method's own steps) and to the continuous problem's gradient (true). continuous over exact: above 1 the"
        " exact gradient of the steps is closer to the truth, below 1 the continuous adjoint."
    )
    lines = lines_of(frame)
    groups = {line["group_id"]: line["group"] for line in lines if line["rtol"] is not None}
    sections, data = {}, []
    for group_id in groups:
        cells = [line for line in lines if line["group_id"] == group_id]
        line = _truth_line(cells)
        sections.setdefault(f"{line['method']}, {line['dtype']}", []).append(texts(line, TRUTH))
        data.append(line)
    found = tuple(Section(heading, tuple(rows)) for heading, rows in sections.items())
    headings = tuple(column[0] for column in TRUTH)
    return Table("truth", "True error of the gradient", caption, where, headings, found, tuple(data))


def _truth_line(cells: Sequence[Line]) -> Line:
    by_name = {c["name"]: c for c in cells}
    first = by_name.get(LEADER, cells[0])
    exact = [c for c in cells if c["contender"] == "ours" and gradient_record(c["gradient"]).exact_for_method]
    discrete = [c["error_discrete"] for c in exact if c["error_discrete"] is not None]
    sizes = ", ".join(f"{name}={size}" for name, size in first["sizes"].items())
    line: Line = {"problem": f"{first['problem']}({sizes}) batch {int(first['batch'])}"}
    line |= {key: first[key] for key in ("method", "dtype", "rtol", "steps_accepted", "forward_error")}
    line |= {key: first[key] for key in ("error_true_reference", "error_true_bar")}
    worst = max(discrete, default=None)
    line |= {"discrete": worst, "discrete_ulp": ratio(worst, LAST_PLACE[first["dtype"]]), "exact": first["error_true"]}
    others = ("ours continuous", "torchdiffeq backprop", "torchdiffeq continuous")
    keys = ("continuous", "torchdiffeq_backprop", "torchdiffeq_continuous")
    line |= {
        key: by_name[name]["error_true"] if name in by_name else None for key, name in zip(keys, others, strict=True)
    }
    return line | {"continuous_over_exact": ratio(line["continuous"], line["exact"])}


def gradients_table(frame: pd.DataFrame, where: str) -> Table:
    """Return one line per cell, one section per group."""
    lines = [with_written_ratios(line, PAIRED) for line in with_verdicts(lines_of(frame))]
    lines = [line | {"shown_status": shown_status(line)} for line in lines]
    groups = {line["group_id"]: line["group"] for line in lines}
    columns, sections = measured_columns(GRADIENTS, lines), []
    for group_id, heading in groups.items():
        cells = [line for line in lines if line["group_id"] == group_id]
        sections.append(Section(heading, tuple(texts(line, columns) for line in cells), notes(cells)))
    caption = (
        "error, discrete: relative to autograd on the recorded steps, also in units in the last place (ulp); error,"
        " true: relative to a converged reference; time: median, forward and backward together; tensors: peak of live"
        " tensors; RSS: growth of a fresh process; x floor: as a multiple of the bare network calls that cannot be"
        " avoided; x captured floor: of the same calls replayed from a CUDA graph; x peer: as a multiple of"
        " torchdiffeq's odeint in the same group." + statistics_words(lines)
    )
    headings = tuple(column[0] for column in columns)
    return Table(
        "gradients", "Every gradient, group by group", caption, where, headings, tuple(sections), numbers(lines)
    )


def ordering_table(frame: pd.DataFrame, where: str) -> Table:
    """Return one line per group: the order of memory, predicted and measured."""
    caption = (
        "Whether the peak tensor bytes of symplectic, aca and baseline are in the order of the formulas (N + s) D + A,"
        " N D + s A and D + N s A. If the graph of f is smaller than four states, the kept states decide, and"
        " symplectic need not come first."
    )
    return _table(
        "ordering", "The predicted order of memory, and whether it held", caption, where, ORDERING, memory_order(frame)
    )


def _table(name: str, title: str, caption: str, where: str, columns: Sequence[Column], lines: Sequence[Line]) -> Table:
    section = Section("", tuple(texts(line, columns) for line in lines))
    return Table(name, title, caption, where, tuple(column[0] for column in columns), (section,), tuple(lines))
