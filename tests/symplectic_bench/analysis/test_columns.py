"""Every derived column of a summary by number: for one solve, and for a network that was trained."""

from dataclasses import replace

import pytest

from symplectic_bench.analysis.summary import losses_off, ratio, summarize
from tests.symplectic_bench.sample_rows import a_cell, a_row

COUNTS = {"f_calls_forward": 7, "f_calls_backward": 11, "vjps_forward": 13, "vjps_backward": 17}
SIZES = {"peak_tensor_bytes": 5000, "kept_tensor_bytes": 2000, "state_bytes": 100, "stages": 3, "steps_accepted": 4}
ROW = a_row(**COUNTS, **SIZES, steps_backward=10, forward_s=1.4, error_discrete=2.0**-50)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("f_calls", 18),
        ("vjps", 30),
        ("calls", 48),
        ("calls_per_stage", 4.0),
        ("backward_tensor_bytes", 3000),
        ("forward_per_call_s", 0.2),
        ("peak_states", 50.0),
        ("steps_back_over_forth", 2.5),
        ("error_discrete_ulp", 4.0),
    ],
)
def test_a_column_has_the_number_of_its_heading(column, value):
    # 1.4 / 7 is 0.2 to rounding; the others are exact.
    assert summarize([ROW]).iloc[0][column] == pytest.approx(value, rel=1e-15)


def test_units_in_the_last_place_are_those_of_the_dtype():
    row = a_row(a_cell(dtype="float32"), error_discrete=2.0**-21)
    assert summarize([row]).iloc[0]["error_discrete_ulp"] == 4.0


@pytest.mark.parametrize("missing", ["f_calls_forward", "f_calls_backward"])
def test_a_sum_with_an_unknown_part_is_unknown(missing):
    assert summarize([replace(ROW, **{missing: None})])["f_calls"].isna().all()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(6.0, 2.0, 3.0), (0.0, 2.0, 0.0), (None, 2.0, None), (6.0, None, None), (6.0, 0.0, None)],
)
def test_a_ratio_needs_a_value_and_a_unit_that_is_not_zero(value, unit, expected):
    assert ratio(value, unit) == expected


def test_losses_are_compared_relative_to_those_of_the_other():
    assert losses_off([3.0, 1.0, 9.0], [2.0, 4.0]) == [0.5, 0.75]
    assert losses_off([3.0, -3.0], [0.0, -2.0]) == [3.0, 0.5]


class TestTraining:
    """Two contenders that train the same network; the first iteration of the one that leads was cold."""

    LEADER = a_row(
        losses=[4.0, 2.0, 1.0, 0.5],
        total_samples_s=[9.0, 2.0, 4.0, 100.0],
        cold_iterations=[0],
        f_calls_samples=[10, 20, 40, 999],
        steps_samples=[1, 2, 5, 999],
    )
    OTHER = a_row(
        a_cell(contender="torchdiffeq", gradient="backprop"),
        losses=[4.0, 2.5, 1.1],
        total_samples_s=[3.0, 5.0, 4.0],
        cold_iterations=[],
        f_calls_samples=[30, 10, 20],
        steps_samples=[3, 1, 2],
    )

    def lines(self, *rows):
        return summarize(rows).set_index("name")

    def test_medians_are_over_the_iterations_that_all_have_without_cold_ones(self):
        found = self.lines(self.LEADER, self.OTHER)
        # Of the first three iterations; for the time those at 1 and 2, since 0 was cold.
        assert found.loc["ours symplectic", ["total_s", "f_calls", "steps_accepted"]].tolist() == [3.0, 20, 2]
        assert found.loc["torchdiffeq backprop", ["total_s", "f_calls", "steps_accepted"]].tolist() == [4.0, 20, 2]

    def test_if_all_were_cold_all_count(self):
        cold = replace(self.LEADER, cold_iterations=[0, 1, 2, 3])
        assert self.lines(cold, self.OTHER).loc["ours symplectic", "total_s"] == 4.0

    def test_losses_are_compared_with_those_of_the_leader_by_the_worst(self):
        found = self.lines(self.LEADER, self.OTHER)["losses_off"]
        assert found["ours symplectic"] == 0.0
        assert found["torchdiffeq backprop"] == 0.25

    def test_without_the_leader_there_is_nothing_to_compare_losses_with(self):
        assert self.lines(self.OTHER)["losses_off"].isna().all()

    def test_another_machine_neither_leads_nor_shortens(self):
        elsewhere = replace(self.LEADER, environment="elsewhere", losses=[1.0])
        found = self.lines(elsewhere, replace(self.OTHER, environment="here"))
        assert found.loc["torchdiffeq backprop", ["total_s", "f_calls"]].tolist() == [4.0, 20]
        assert found["losses_off"].isna()["torchdiffeq backprop"]

    def test_columns_of_one_solve_are_empty(self):
        found = self.lines(self.LEADER, self.OTHER)
        empty = ["time_over_peer", "memory_over_peer", "vjps", "calls", "calls_per_stage", "f_calls_over_formula"]
        assert found[empty].isna().all(axis=None)

    def test_a_row_without_losses_has_none_to_compare(self):
        found = self.lines(self.LEADER, a_row(a_cell(gradient="aca")))
        assert found["losses_off"].isna()["ours aca"]
        assert found.loc["ours aca", "calls"] > 0
