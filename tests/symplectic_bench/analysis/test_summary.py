from dataclasses import replace

import pytest

from symplectic_bench.analysis.summary import display_place, lines_of, summarize
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row, first_look, group

ORDERED_NAMES = [
    *(f"ours {gradient}" for gradient in ("symplectic", "aca", "baseline", "stages", "backprop", "continuous")),
    *(f"torchdiffeq {gradient}" for gradient in ("backprop", "continuous", "continuous-seminorm")),
]


def lines(rows):
    return {line["name"]: line for line in lines_of(summarize(rows))}


def changed(rows, name, **changes):
    return [replace(row, **changes) if row.cell.name == name else row for row in rows]


def test_the_frame_has_a_line_for_every_row_whatever_its_status():
    assert len(summarize(first_look())) == len(first_look())


def test_no_rows_make_an_empty_frame():
    assert lines_of(summarize([])) == []


def test_groups_keep_their_order_and_names_within_them_are_in_display_order():
    rows = [*reversed(group()), *group(rtol=1e-3, atol=1e-5)]
    found = lines_of(summarize(rows))
    assert [line["name"] for line in found] == ORDERED_NAMES * 2
    assert [line["rtol"] for line in found] == [1e-6] * 9 + [1e-3] * 9


def test_names_without_a_record_come_last():
    names = ["theirs aca", "ours unheard-of", "floor aca", "ours mali", "ours symplectic"]
    expected = ["ours symplectic", "ours mali", "ours unheard-of", "floor aca", "theirs aca"]
    assert sorted(names, key=display_place) == expected


def with_floor(**changes):
    samples = {"total_s": 0.5, "forward_samples_s": [0.2] * 5, "backward_samples_s": [0.3] * 5}
    floor = {**samples, "peak_tensor_bytes": 1000, "forward_disagrees": None, "floor_s": 7.0}
    return [*group(), a_row(a_cell(contender="floor", gradient="symplectic"), **(floor | changes))]


def test_a_measured_floor_is_preferred_to_an_estimated_one():
    found = lines(with_floor())
    row = found["ours symplectic"]
    assert row["time_over_floor"] == pytest.approx(row["total_s"] / 0.5)
    assert row["memory_over_floor"] == row["peak_tensor_bytes"] / 1000
    assert found["floor symplectic"]["time_over_floor"] == found["floor symplectic"]["memory_over_floor"] == 1
    assert found["ours aca"]["time_over_floor"] == lines(group())["ours aca"]["time_over_floor"]


@pytest.mark.parametrize(
    ("change", "time", "memory"),
    [
        ({"status": Status.TIMEOUT}, False, False),
        ({"total_s": None}, False, True),
        ({"peak_tensor_source": "fit"}, True, False),  # no unit for an exact peak
    ],
)
def test_a_part_of_the_floor_that_was_not_measured_is_estimated(change, time, memory):
    row, estimated = lines(with_floor(**change))["ours symplectic"], lines(group())["ours symplectic"]
    assert (row["time_over_floor"] != estimated["time_over_floor"]) is time
    assert (row["memory_over_floor"] != estimated["memory_over_floor"]) is memory


def test_time_and_memory_are_multiples_of_the_floor_and_of_the_peer():
    line = lines(group())["ours symplectic"]
    assert line["time_over_floor"] == pytest.approx(2.7)
    assert line["time_over_peer"] == pytest.approx(2.7 / (1.5 * 1.3))
    assert line["memory_over_floor"] == pytest.approx(line["peak_tensor_bytes"] / line["floor_tensor_bytes"])
    peer = lines(group())["torchdiffeq backprop"]
    assert line["memory_over_peer"] == pytest.approx(line["peak_tensor_bytes"] / peer["peak_tensor_bytes"])
    assert peer["time_over_peer"] == 1


@pytest.mark.parametrize("change", [{"forward_disagrees": True}, {"status": Status.DIVERGED}])
def test_a_cell_that_is_not_comparable_has_no_ratios(change):
    found = lines(changed(group(), "ours aca", **change))
    assert found["ours aca"]["comparable"] is False
    assert found["ours aca"]["time_over_floor"] is None
    assert found["ours aca"]["memory_over_peer"] is None
    assert found["ours stages"]["memory_over_peer"] is not None


def test_a_peer_that_is_not_comparable_is_not_a_unit():
    found = lines(changed(group(), "torchdiffeq backprop", forward_disagrees=True))
    assert found["ours aca"]["time_over_peer"] is None
    assert found["ours aca"]["time_over_floor"] is not None


def test_a_fitted_peak_is_not_divided_by_an_exact_one():
    found = lines(changed(group(), "ours aca", peak_tensor_source="fit"))
    assert found["ours aca"]["memory_over_peer"] is None
    assert found["ours aca"]["time_over_peer"] is not None


def test_a_ratio_never_leaves_its_group():
    rows = [a_row(a_cell(contender="torchdiffeq", gradient="backprop")), a_row(a_cell(rtol=1e-3, atol=1e-5))]
    assert lines(rows)["ours symplectic"]["time_over_peer"] is None


def test_calls_are_counted_over_both_directions():
    line = lines([a_row(f_calls_forward=10, f_calls_backward=20, vjps_forward=1, vjps_backward=5)])["ours symplectic"]
    assert (line["f_calls"], line["vjps"]) == (30, 6)


def test_labels_name_the_seed_only_if_there_are_several():
    assert "seed" not in lines(group())["ours aca"]["group"]
    groups = {line["group"] for line in lines_of(summarize(group() + group(seed=1)))}
    assert {label[-6:] for label in groups} == {"seed 0", "seed 1"}


class TestMachines:
    """Rows of one group, measured on two machines."""

    def rows(self):
        here, there = "a" * 12, "b" * 12
        return [replace(row, environment=here if row.contender == "ours" else there) for row in group()]

    def test_no_ratio_compares_two_machines(self):
        frame = summarize(self.rows())
        ours, theirs = frame[frame.contender == "ours"], frame[frame.contender == "torchdiffeq"]
        assert ours["time_over_peer"].isna().all() and not theirs["time_over_peer"].isna().all()

    def test_rows_without_an_environment_count_as_one_machine(self):
        frame = summarize([replace(row, environment=None) for row in self.rows()])
        assert not frame[frame.contender == "ours"]["time_over_peer"].isna().any()
