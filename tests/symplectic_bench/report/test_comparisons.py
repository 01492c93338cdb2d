"""Ratios with their limits and verdicts, as the tables show them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.tables import gradients_table, overview_table
from symplectic_bench.report.typesetting import to_csv
from tests.symplectic_bench.sample_rows import a_cell, a_row

WHERE = "Measured here."
FOUR = {
    ("torchdiffeq", "backprop"): 1.0,
    ("ours", "symplectic"): 0.5,
    ("ours", "aca"): 2.0,
    ("floor", "symplectic"): 0.25,
}


def rows(rounds, **changes):
    """Return rows of four contenders that differ by factors of two, in rounds with noise of 1 %."""
    rng, found = np.random.default_rng(0), []
    for (contender, gradient), multiple in FOUR.items():
        times = multiple * np.exp(rng.normal(0, 0.01, rounds))
        row = a_row(a_cell(contender=contender, gradient=gradient, **changes), total_s=float(np.median(times)))
        found.append(replace(row, forward_samples_s=list(times / 2), backward_samples_s=list(times / 2)))
    return found


def column(table, heading):
    """Return the texts of the first column under a heading, by the name of the line."""
    place = table.headings.index(heading)
    return {line[0]: line[place] for section in table.sections for line in section.lines}


def read(written):
    """Return the ratio without its limits."""
    return float(written.split()[0])


def test_ten_rounds_give_intervals_and_verdicts():
    table = gradients_table(summarize(rows(10)), WHERE)
    found, verdicts = column(table, "x peer"), column(table, "against the peer")
    assert read(found["ours symplectic"]) == pytest.approx(0.5, rel=0.02) and "(" in found["ours symplectic"]
    assert read(column(table, "x floor")["ours symplectic"]) == pytest.approx(2.0, rel=0.02)
    assert found["torchdiffeq backprop"] == "1.00"
    assert verdicts == {
        "ours symplectic": "first",
        "ours aca": "behind",
        "floor symplectic": "-",
        "torchdiffeq backprop": "-",
    }
    assert "for the table's 2 comparisons" in table.caption


def test_nine_rounds_give_a_range_and_no_verdict():
    table = gradients_table(summarize(rows(9)), WHERE)
    assert "[" in column(table, "x peer")["ours aca"] and "(" not in column(table, "x peer")["ours aca"]
    assert column(table, "against the peer")["ours aca"] == "no verdict"
    assert "no verdict" in table.caption and "comparisons" not in table.caption


def test_the_caption_says_how_small_a_difference_would_have_been_seen():
    """The ratios' spread is 1.4 %, and of ten rounds 1.2 of it is seen at a level of 0.05 / 2."""
    caption = gradients_table(summarize(rows(10)), WHERE).caption
    least, most = caption.split("four of five cases is ")[1].split(" %")[0].split(" to ")
    assert 0.8 < float(least) <= float(most) < 3.5


def test_too_many_comparisons_for_the_rounds_say_how_many_are_needed():
    many = [row for seed in range(30) for row in rows(10, seed=seed)]
    table = gradients_table(summarize(many), WHERE)
    assert set(column(table, "against the peer").values()) == {"no verdict", "-"}
    assert "60 comparisons" in table.caption and "need 12 rounds" in table.caption


def test_a_mean_over_groups_has_the_interval_of_independent_errors():
    """Two groups: the half width of the mean's logarithm is that of one group over the square root of two."""
    one = [row for row in rows(10) if row.contender != "floor"]
    two = [*one, *(replace(row, seed=1, **ids(row)) for row in one)]
    single, double = (overview_table(summarize(found), WHERE).data for found in (one, two))
    widths = [
        math.log(data[0]["mean_time_over_peer_high"] / data[0]["mean_time_over_peer"]) for data in (single, double)
    ]
    assert widths[1] == pytest.approx(widths[0] / math.sqrt(2))
    assert " to " in column(overview_table(summarize(two), WHERE), "time x peer")["ours symplectic"]


def ids(row):
    cell = replace(row.cell, seed=1)
    return {"cell_id": cell.id, "group_id": cell.group_id}


def test_a_mean_with_a_group_of_few_rounds_has_no_interval():
    found = overview_table(summarize([*rows(10), *rows(9, seed=1)]), WHERE)
    assert " to " not in column(found, "time x peer")["ours symplectic"]


def test_the_csv_holds_the_numbers_and_not_the_texts():
    header = to_csv(gradients_table(summarize(rows(10)), WHERE)).splitlines()[0].split(",")
    assert {"time_over_peer", "time_over_peer_low", "time_over_peer_p_value", "verdict"} <= set(header)
    assert not any(name.startswith("written_") for name in header)
