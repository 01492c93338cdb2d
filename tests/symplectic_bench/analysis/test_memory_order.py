"""The order of memory: predicted and measured."""

from dataclasses import replace

from symplectic_bench.analysis.memory_order import memory_order
from symplectic_bench.analysis.summary import summarize
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import group


def changed(rows, name, **changes):
    return [replace(row, **changes) if row.cell.name == name else row for row in rows]


def test_the_order_that_the_formulas_predict_is_compared_with_the_measured_one():
    (line,) = memory_order(summarize(group()))
    assert line["stages"] == 6
    assert line["graph_of_4_states"] is True
    assert line["predicted_symplectic_bytes"] == line["measured_symplectic_bytes"]
    assert line["predicted_order"] == "symplectic < aca < baseline"
    assert line["held"] is True


def test_an_order_that_did_not_hold_is_reported():
    (line,) = memory_order(summarize(changed(group(), "ours symplectic", peak_tensor_bytes=10**9)))
    assert line["measured_order"] == "aca < baseline < symplectic"
    assert line["held"] is False


def test_a_cheap_graph_is_marked():
    rows = [replace(row, graph_bytes=row.state_bytes) for row in group()]
    (line,) = memory_order(summarize(rows))
    assert line["graph_of_4_states"] is False


def test_an_order_without_all_three_gradients_says_which_is_missing():
    (line,) = memory_order(summarize(changed(group(), "ours aca", status=Status.OOM, peak_tensor_bytes=None)))
    assert (line["held"], line["reason"]) == (None, "aca oom")
    (line,) = memory_order(summarize([row for row in group() if row.gradient != "aca"]))
    assert (line["held"], line["reason"]) == (None, "aca not measured")
    (line,) = memory_order(summarize(changed(group(), "ours symplectic", graph_bytes=None)))
    assert line["held"] is None
