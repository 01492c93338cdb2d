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
    assert line["predicted_order"] == "symplectic < aca < baseline"
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


def test_predictions_are_the_formulas_numbers():
    # D = 10, A = 100, N = 7, s = 3: (N + s) D + A, N D + s A, D + N s A.
    sizes = {"state_bytes": 10, "graph_bytes": 100, "steps_accepted": 7, "stages": 3}
    (line,) = memory_order(summarize([replace(row, **sizes) for row in group()]))
    predicted = {name: line[f"predicted_{name}_bytes"] for name in ("symplectic", "aca", "baseline")}
    assert predicted == {"symplectic": 200, "aca": 370, "baseline": 2110}
    assert {name: line[name] for name in sizes} == sizes


def test_a_graph_of_four_states_is_not_cheap():
    for states, enough in ((4, True), (3, False)):
        rows = [replace(row, graph_bytes=states * row.state_bytes) for row in group()]
        assert memory_order(summarize(rows))[0]["graph_of_4_states"] is enough


def test_each_group_has_its_line_and_only_our_gradients_count():
    tight, loose = group(), group(rtol=1e-3)
    for rows, steps in (([*tight, *loose], [32, 8]), ([*loose, *tight], [8, 32])):
        assert [line["steps_accepted"] for line in memory_order(summarize(rows))] == steps
    theirs = [row for row in group() if row.contender != "ours"]
    assert memory_order(summarize(theirs)) == []
