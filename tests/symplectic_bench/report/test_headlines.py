"""Titles that say what the points show, and only if it follows from them."""

from dataclasses import replace

import matplotlib
import pytest
from matplotlib.text import Text

from symplectic_bench.analysis.summary import summarize
from symplectic_bench.report.error_figures import rounding, true_errors
from symplectic_bench.report.figures import memory_time, over_floor, work_precision
from symplectic_bench.report.growth_figures import growth
from symplectic_bench.report.headlines import Bound, Comparison, Share, common_headline, multiple
from symplectic_bench.report.render import STYLE, draw
from tests.symplectic_bench.sample_rows import UNMEASURED, errors_alone, group

WHERE = "Measured here."
PAIR = (("ours", "symplectic"), ("torchdiffeq", "backprop"))


def costs(rows, times=1.8, memory=0.1, rounds=12, error=1.0):
    """Return the rows with symplectic's costs as multiples of the others', in as many rounds."""
    found = []
    for row in rows:
        leads = row.cell.name == "ours symplectic"
        unit = (times if leads else 1.0, memory if leads else 1.0, error if leads else 1.0)
        samples = [unit[0] * (1 + i / 1000) for i in range(rounds)]
        timed = {"forward_samples_s": samples, "backward_samples_s": samples, "total_samples_s": None}
        size = {"peak_tensor_bytes": round(unit[1] * 2**20), "error_true": unit[2] * 1e-6, "error_true_bar": 1e-12}
        found.append(replace(row, total_s=2 * samples[0], **timed, **size))
    return found


def headlines(figure):
    return ["" if panel.headline is None else str(panel.headline) for panel in figure.panels]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.097, 0.097, "a tenth of it"),
        (0.5, 0.5, "half of it"),
        (0.12, 0.12, "12 % of it"),
        (0.0123, 0.0123, "1.2 % of it"),
        (0.996, 0.996, "99.6 % of it"),
        (1.8, 1.8, "1.8 times it"),
        (1.001, 1.001, "1.00 times it"),
        (1.03, 1.03, "1.03 times it"),
        (99.6, 99.6, "99.6 times it"),
        (1234.0, 1234.0, "1200 times it"),
        (0.08, 0.4, "8 to 40 % of it"),
        (0.71, 1.9, "0.71 to 1.9 times it"),
    ],
)
def test_a_ratio_is_a_fraction_only_if_it_is_near_one(low, high, words):
    assert multiple(low, high, "it") == words


class TestTradeOff:
    def test_the_title_is_made_from_the_ratios_of_the_panel(self):
        (title,) = headlines(memory_time(summarize(costs(group(PAIR))), WHERE))
        assert title == "symplectic: a tenth of torchdiffeq backprop's memory at 1.8 times its time"
        (title,) = headlines(memory_time(summarize(costs(group(PAIR), times=0.25, memory=0.33)), WHERE))
        assert title == "symplectic: a third of torchdiffeq backprop's memory at a quarter of its time"

    def test_without_torchdiffeq_it_compares_with_our_backprop(self):
        pair = (("ours", "symplectic"), ("ours", "backprop"))
        (title,) = headlines(memory_time(summarize(costs(group(pair))), WHERE))
        assert title == "symplectic: a tenth of backprop's memory at 1.8 times its time"

    @pytest.mark.parametrize(
        "undecided",
        [
            costs(group(PAIR), rounds=9),
            costs(group(PAIR), times=1.0),
            costs(group(PAIR))[:1],
            [replace(row, forward_disagrees=row.contender == "ours") for row in costs(group(PAIR))],
            [
                replace(row, peak_tensor_source="exact" if row.contender == "ours" else "fit")
                for row in costs(group(PAIR))
            ],
            [replace(row, environment=row.contender) for row in costs(group(PAIR))],
        ],
        ids=["few rounds", "the interval includes 1", "missing", "forward disagrees", "fitted", "two machines"],
    )
    def test_it_is_neutral_if_nothing_follows(self, undecided):
        figure = memory_time(summarize(undecided), WHERE)
        assert headlines(figure) == [""] and figure.heading == "Memory against time"
        assert draw(figure).axes[0].get_title() == "mlp"

    def test_the_figures_title_is_the_range_over_its_panels(self):
        rows = [*costs(group(PAIR)), *costs(group(PAIR, seed=1), times=1.2, memory=0.2)]
        words = "symplectic: 10 to 20 % of torchdiffeq backprop's memory at 1.2 to 1.8 times its time"
        assert memory_time(summarize(rows), WHERE).heading == words
        more = costs(group(PAIR, seed=2), times=1.0)
        assert memory_time(summarize([*rows, *more]), WHERE).heading == f"{words} (2 of 3 panels)"

    def test_the_parameters_stand_below(self):
        axes = draw(memory_time(summarize(costs(group(PAIR))), WHERE)).axes[0]
        below = axes.texts[0].get_text().replace("\u00a0", " ").replace("\n", " ")
        assert below == "mlp, batch 128, float64, dopri5, rtol 1e-06, atol 1e-08"

    def test_titles_and_parameters_fit_beside_each_other(self):
        sizes = tuple((name, 1024) for name in ("layers", "outputs", "state", "width"))
        rows = [
            row
            for n in range(6)
            for row in costs(
                group(PAIR, sizes=(("components", n), *sizes), problem="memory_flow"), memory=0.27 + n / 100
            )
        ]
        with matplotlib.rc_context(STYLE):
            figure = draw(memory_time(summarize(rows), WHERE))
            figure.draw_without_rendering()
        words = [*figure.texts, *(text for axes in figure.axes for text in (axes.title, axes.texts[0]))]
        boxes = [Text.get_window_extent(text) for text in words]
        assert len(boxes) == 13
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]


def test_growth_compares_at_the_largest_size_each_cost_in_its_own_panel():
    rows = [
        row
        for n, memory in ((1, 1.0), (10, 0.5), (100, 0.1))
        for row in costs(group(PAIR, sizes=(("outputs", n),)), memory=memory, rounds=12 if n > 1 else 3)
    ]
    time, memory = headlines(growth(summarize(rows), WHERE))
    assert time == "symplectic at 100 outputs: 1.8 times torchdiffeq backprop's time"
    assert memory == "symplectic at 100 outputs: a tenth of torchdiffeq backprop's memory"
    time, memory = headlines(growth(summarize(costs(rows, rounds=3)), WHERE))
    assert not time and memory, "memory has no rounds and needs none"


def test_work_and_precision_compares_at_the_finest_tolerance_and_says_the_error():
    rows = [row for rtol in (1e-3, 1e-6) for row in costs(group(PAIR, rtol=rtol, atol=rtol), error=0.5)]
    time, memory = headlines(work_precision(summarize(rows), WHERE))
    assert time == "symplectic at rtol 1e-06: 1.8 times torchdiffeq backprop's time at half of its error"
    assert memory == "symplectic at rtol 1e-06: a tenth of torchdiffeq backprop's memory at half of its error"
    vague = [replace(row, error_true_bar=row.error_true) for row in rows]
    assert headlines(work_precision(summarize(vague), WHERE)) == ["", ""]


def test_multiples_of_the_floor_are_a_range_over_the_groups():
    pair = (("ours", "symplectic"), ("floor", "symplectic"))
    rows = [*costs(group(pair), memory=1.5), *costs(group(pair, seed=1), times=1.2, memory=3.0)]
    assert over_floor(summarize(rows), WHERE).heading == (
        "symplectic: 1.5 to 3 times the floor's memory at 1.2 to 1.8 times its time"
    )
    few = [*rows, *costs(group(pair, seed=2), rounds=3)]
    assert headlines(over_floor(summarize(few), WHERE))[0] == "", "one time is undecided"


class TestErrors:
    def test_tolerances_at_which_the_exact_gradients_are_closer_are_counted(self):
        (title,) = headlines(true_errors(summarize(errors_alone()), WHERE)[0])
        assert title == "exact gradients closer than continuous at 2 of 3 tolerances"

    def test_the_references_own_error_may_leave_it_open(self):
        vague = [replace(row, error_true_bar=row.error_true) for row in errors_alone()]
        assert headlines(true_errors(summarize(vague), WHERE)[0]) == [""]

    def test_the_largest_rounding_error_counts_if_the_oracle_has_more_digits(self):
        rows = [
            replace(row, error_discrete=error, error_discrete_oracle="fifty digits", **UNMEASURED)
            for steps, error in ((10, 2.0**-51), (100, 2.0**-50))
            for row in group(PAIR, steps=steps, rtol=None, atol=None)
        ]
        assert headlines(rounding(summarize(rows), WHERE)) == ["symplectic: at most 4 units in the last place"]
        coarse = [replace(row, error_discrete_oracle="float64") for row in rows]
        assert headlines(rounding(summarize(coarse), WHERE)) == [""]


@pytest.mark.parametrize(
    ("value", "words"), [(2.04e-7, "2.1e-07"), (4.0, "4"), (0.3, "0.3"), (1801.0, "1900"), (9.96, "10"), (5.7, "5.7")]
)
def test_a_bound_is_rounded_up(value, words):
    assert str(Bound(value, "at most {}")) == f"at most {words}"


def test_several_panels_have_a_common_headline_only_if_they_say_the_same_kind_of_thing():
    shares = [Share(1, 2, "{} so"), None, Share(3, 3, "{} so")]
    assert common_headline(shares) == "4 of 5 so (2 of 3 panels)"
    assert common_headline([*shares, None, None]) == "", "most say nothing"
    assert common_headline([Bound(2.0, "{} at most"), Bound(3.0, "{} at most")]) == "3 at most"
    one, other = (Comparison(who, "backprop", (("time", 2.0, 2.0),)) for who in ("symplectic", "aca"))
    assert common_headline([one, other]) == common_headline([one]) == common_headline([one, shares[0]]) == ""
