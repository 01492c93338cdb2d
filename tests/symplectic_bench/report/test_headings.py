"""Every number of a table under its heading, with rows in which no two numbers are alike."""

import pytest

from symplectic_bench.analysis.claims import evaluate_claims
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.report.tables import all_tables, gradients_table, overview_table, truth_table
from symplectic_bench.spec.criteria import Target
from tests.symplectic_bench.sample_rows import NINE, a_cell, a_row, group

WHERE = "Measured here."
KIB, MIB = 2**10, 2**20


def under_headings(table, section=0, line=0):
    """Return the (heading, text) pairs of one line: two columns may share a heading."""
    return list(zip(table.headings, table.sections[section].lines[line], strict=True))


def distinct():
    """Rows of ours and of the peer whose fields all differ."""
    ours = a_row(
        f_calls_forward=101, f_calls_backward=202, vjps_forward=3, vjps_backward=54, steps_accepted=17,
        steps_rejected=5, total_s=0.6, floor_s=0.25, peak_tensor_bytes=6 * MIB, floor_tensor_bytes=4 * MIB,
        peak_rss_bytes=9 * MIB, error_discrete=2.0**-52 * 7, error_true=4.5e-5,
    )  # fmt: skip
    peer = a_row(a_cell(contender="torchdiffeq", gradient="backprop"), total_s=0.4, peak_tensor_bytes=16 * MIB)
    return [ours, peer]


def test_the_numbers_of_a_gradient():
    assert under_headings(gradients_table(summarize(distinct()), WHERE)) == [
        ("gradient", "ours symplectic"),
        ("status", "ok"),
        ("error, discrete", "1.55e-15"),
        ("in ulp", "7.00"),
        ("error, true", "4.50e-05"),
        ("steps", "17"),
        ("f calls", "303"),
        ("VJPs", "57"),
        ("time, ms", "600"),
        ("x floor", "2.40"),
        ("x peer", "1.50 [1.50, 1.50]"),
        ("against the peer", "no verdict"),
        ("tensors, MiB", "6.00"),
        ("x floor", "1.50"),
        ("x peer", "0.375"),
        ("RSS, MiB", "9.00"),
    ]


def test_the_numbers_of_the_overview():
    """Two float64 cells and one of float32 of one gradient: the worst errors, and geometric means."""
    one, peer = distinct()
    two = a_row(
        a_cell(seed=1), total_s=2.4, floor_s=0.25, peak_tensor_bytes=24 * MIB, floor_tensor_bytes=4 * MIB,
        error_discrete=5e-16,
    )  # fmt: skip
    single = a_row(a_cell(dtype="float32"), total_s=None, peak_tensor_bytes=None, error_discrete=3e-7)
    worse = a_row(a_cell(dtype="float32", seed=1), total_s=None, peak_tensor_bytes=None, error_discrete=8e-7)
    found = overview_table(summarize([two, one, peer, worse, single]), WHERE)
    assert under_headings(found) == [
        ("gradient", "ours symplectic"),
        ("cells", "4"),
        ("ok", "4"),
        ("worst discrete error, float64", "1.55e-15"),
        ("float32", "8.00e-07"),
        ("time x floor", "4.80"),  # of 2.4 and 9.6
        ("time x peer", "1.50"),
        ("memory x floor", "3.00"),  # of 1.5 and 6
        ("memory x peer", "0.375"),
        ("compared", "1"),
    ]


def test_the_numbers_of_the_true_errors():
    errors = {
        "ours symplectic": (1e-16, 2e-6), "ours aca": (3e-16, 2e-6), "ours stages": (2e-16, 2e-6),
        "ours continuous": (4e-4, 5e-6), "torchdiffeq backprop": (6e-3, 7e-6), "torchdiffeq continuous": (8e-4, 9e-6),
    }  # fmt: skip
    own = {"steps_accepted": 23, "error_true_bar": 1e-12, "error_true_reference": "Taylor series", "forward_error": 3.5}
    rows = [
        a_row(row.cell, error_discrete=errors[row.cell.name][0], error_true=errors[row.cell.name][1], **own)
        for row in group(NINE)
        if row.cell.name in errors
    ]
    assert under_headings(truth_table(summarize(rows), WHERE)) == [
        ("problem", "mlp(layers=2, state=32, width=64) batch 128"),
        ("rtol", "1e-06"),
        ("steps", "23"),
        ("reference", "Taylor series"),
        ("its error", "1.00e-12"),
        ("exact: discrete, worst", "3.00e-16"),
        ("in ulp", "1.35"),
        ("exact: true", "2.00e-06"),
        ("continuous: true", "5.00e-06"),
        ("continuous over exact", "2.50"),
        ("torchdiffeq backprop: true", "7.00e-06"),
        ("torchdiffeq continuous: true", "9.00e-06"),
        ("solution, tolerances off", "3.50"),
    ]


def test_the_numbers_of_the_order_of_memory():
    peaks = {"symplectic": 3 * MIB, "aca": 5 * MIB, "baseline": 7 * MIB}
    sizes = {"state_bytes": 32 * KIB, "graph_bytes": 256 * KIB, "steps_accepted": 10, "stages": 6}
    rows = [a_row(a_cell(gradient=name), peak_tensor_bytes=peak, **sizes) for name, peak in peaks.items()]
    table = next(x for x in all_tables(summarize(rows), WHERE) if x.name == "ordering")
    found = dict(under_headings(table))
    assert {name: found[name] for name in ("state D, KiB", "graph A, KiB", "A >= 4 D", "N", "s", "held")} == {
        "state D, KiB": "32.0",
        "graph A, KiB": "256",
        "A >= 4 D": "yes",
        "N": "10",
        "s": "6",
        "held": "yes",
    }
    assert [found[f"{name} measured, MiB"] for name in peaks] == ["3.00", "5.00", "7.00"]
    # (N + s) D + A, N D + s A and D + N s A, of D = 1/32 and A = 1/4 MiB.
    assert [found[f"{name} predicted, MiB"] for name in peaks] == ["0.750", "1.81", "15.0"]


@pytest.mark.parametrize(("limit", "outcome", "met"), [(3.0, "met", "1"), (2.0, "not met", "0")])
def test_the_numbers_of_the_targets(limit, outcome, met):
    frame, rows = summarize(distinct()), distinct()
    target = Target(point=12, name="n", cells={"contender": ["ours"]}, measure="time_over_floor", at_most=limit)
    targets = evaluate_claims([target.claim], [row.cell for row in rows], lines_of(frame))
    reached, by_cell = all_tables(frame, WHERE, targets)[:2]
    assert under_headings(reached) == [
        ("point", "12"),
        ("target", "n"),
        ("limit", f"at most {limit:g}"),
        ("worst", "2.40"),
        ("met", met),
        ("of", "1"),
        ("outcome", outcome),
    ]
    cells = dict(under_headings(by_cell))
    assert (cells["cell"], cells["measured"], cells["limit"], cells["outcome"]) == (
        "ours symplectic", "2.40", f"at most {limit:g}", outcome,
    )  # fmt: skip
