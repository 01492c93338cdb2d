"""Faults of the suite: in what is measured, kept, compared, tabulated and drawn. See faults.py."""

from tests.gate.copies import Plant
from tests.gate.faults import Fault

SUITE, TESTS = "benchmarks/symplectic_bench/", "tests/symplectic_bench/"

CELLS = f"{TESTS}run/test_cells.py::TestByScript::"
HEADINGS = f"{TESTS}report/test_headings.py::"
MARKS = f"{TESTS}report/test_marks.py::"
MEASURE = f"{TESTS}measure/test_measure.py::"
UNITS = f"{TESTS}measure/test_units_of_errors_and_memory.py::"
BACKWARD = f"{TESTS}analysis/test_backward_cost.py::"
KINDS = f"{TESTS}analysis/test_kinds.py::"

TABLES = f"{SUITE}report/tables.py"
RENDER = f"{SUITE}report/render.py"
RECORDS = f"{SUITE}contenders/gradient_records.py"
ROWS_OF = f"{SUITE}run/cells.py"

IN_TABLES = (
    Fault(
        "the columns of f calls and VJPs swapped",
        (
            Plant(TABLES, '("f calls", "f_calls", count)', '("f calls", "vjps", count)'),
            Plant(TABLES, '("VJPs", "vjps", count)', '("VJPs", "f_calls", count)'),
        ),
        tests=(f"{HEADINGS}test_the_numbers_of_a_gradient",),
        in_ci=True,
    ),
    Fault(
        'the columns "x floor" and "x peer" swapped',
        (
            Plant(
                TABLES,
                '("x floor", "written_time_over_floor", text),\n    ("x peer", "written_time_over_peer", text)',
                '("x floor", "written_time_over_peer", text),\n    ("x peer", "written_time_over_floor", text)',
            ),
        ),
        tests=(f"{HEADINGS}test_the_numbers_of_a_gradient",),
    ),
    Fault(
        'the means of "x floor" and "x peer" swapped',
        (
            Plant(TABLES, '("memory x floor", "mean_memory_over_floor"', '("memory x floor", "mean_memory_over_peer"'),
            Plant(TABLES, '("memory x peer", "mean_memory_over_peer"', '("memory x peer", "mean_memory_over_floor"'),
        ),
        tests=(f"{HEADINGS}test_the_numbers_of_the_overview",),
    ),
    Fault(
        "the least error for the worst, over all groups",
        (Plant(f"{SUITE}analysis/overview.py", "max(errors, default=None)", "min(errors, default=None)"),),
        tests=(f"{HEADINGS}test_the_numbers_of_the_overview",),
    ),
    Fault(
        "the least error for the worst, of a solve",
        (Plant(TABLES, "worst = max(discrete, default=None)", "worst = min(discrete, default=None)"),),
        tests=(f"{HEADINGS}test_the_numbers_of_the_true_errors",),
    ),
    Fault(
        "a ratio turned over",
        (
            Plant(
                f"{SUITE}analysis/summary.py",
                "ratio(row.peak_tensor_bytes, peer.peak_tensor_bytes)",
                "ratio(peer.peak_tensor_bytes, row.peak_tensor_bytes)",
            ),
        ),
        tests=(f"{HEADINGS}test_the_numbers_of_a_gradient",),
    ),
    Fault(
        "MB for MiB",
        (Plant(f"{SUITE}report/numerals.py", "three_digits(value, 2**20)", "three_digits(value, 1e6)"),),
        tests=(f"{HEADINGS}test_the_numbers_of_a_gradient", f"{HEADINGS}test_the_numbers_of_the_order_of_memory"),
    ),
)

IN_FIGURES = (
    Fault(
        "an axis that is not logarithmic",
        (Plant(RENDER, '        getattr(axes, f"set_{of}scale")("log")\n', ""),),
        tests=(f"{MARKS}test_every_point_is_drawn_where_it_belongs",),
    ),
    Fault(
        "x and y exchanged",
        (Plant(RENDER, "axes.plot(series.x, series.y, zorder=above", "axes.plot(series.y, series.x, zorder=above"),),
        tests=(f"{MARKS}test_every_point_is_drawn_where_it_belongs",),
    ),
    Fault(
        "the colours of two gradients exchanged",
        (
            Plant(RECORDS, '"symplectic",\n        color="#D55E00"', '"symplectic",\n        color="#0072B2"'),
            Plant(RECORDS, '"aca",\n        color="#0072B2"', '"aca",\n        color="#D55E00"'),
        ),
        tests=(f"{MARKS}test_a_gradient_keeps_the_colour_and_marker_of_the_published_figures",),
    ),
    Fault(
        "one marker for all",
        (Plant(RENDER, '"marker": style.marker,', '"marker": "o",'),),
        tests=(f"{MARKS}test_every_point_is_drawn_where_it_belongs",),
    ),
    Fault(
        "a confidence interval of one side",
        (Plant(f"{SUITE}analysis/power_law.py", "(1 + CONFIDENCE) / 2", "CONFIDENCE"),),
        tests=(f"{TESTS}analysis/test_power_law.py",),
    ),
)

IN_MEASURING = (
    Fault(
        "the least backward time for the median",
        (Plant(ROWS_OF, '"backward_s": statistics.median(backward)', '"backward_s": min(backward)'),),
        tests=(f"{CELLS}test_each_time_is_the_median_of_its_samples",),
    ),
    Fault(
        "the sum of two medians for the median of the sums",
        (
            Plant(
                ROWS_OF,
                "statistics.median(f + b for f, b in zip(forward, backward, strict=True))",
                "statistics.median(forward) + statistics.median(backward)",
            ),
        ),
        tests=(f"{CELLS}test_each_time_is_the_median_of_its_samples",),
    ),
    Fault(
        "a round of the warm-up counted",
        (
            Plant(
                f"{SUITE}measure/wall_time.py",
                "                if number >= 0 or",
                "                if number >= -1 or",
            ),
        ),
        tests=(f"{MEASURE}TestWallTime::test_contenders_take_turns_after_the_warm_up",),
    ),
    Fault(
        "resident memory above nothing",
        (Plant(f"{SUITE}measure/resident_memory.py", "max(0, peak - baseline)", "max(0, peak)"),),
        tests=(f"{UNITS}test_what_was_resident_before_does_not_count",),
    ),
    Fault(
        "float32 compared with a replay in float32",
        (
            Plant(
                f"{SUITE}measure/gradient_error.py",
                "    twin = problem.to(torch.float64, problem.y0.device)\n    return gradient(",
                "    twin = problem\n    return gradient(",
            ),
        ),
        tests=(f"{UNITS}test_float32_is_compared_with_a_replay_in_float64",),
    ),
    Fault(
        "the seed of a problem ignored",
        (Plant(f"{SUITE}problems/problem.py", "manual_seed(seed)", "manual_seed(0)"),),
        tests=(f"{TESTS}problems/test_problems.py::test_equal_seeds_give_equal_problems",),
    ),
    Fault(
        "rows of other instructions taken for this machine's",
        (
            Plant(
                f"{SUITE}rows/environment.py",
                "    cpu_kind: str\n",
                '    cpu_kind: str = field(metadata={"in_id": False})\n',
            ),
        ),
        tests=(f"{TESTS}rows/test_environment.py::test_machine_versions_and_library_determine_the_id",),
    ),
    Fault(
        "rows of other code taken for this code's",
        (
            Plant(
                f"{SUITE}rows/environment.py",
                "    library_sha256: str\n",
                '    library_sha256: str = field(metadata={"in_id": False})\n',
            ),
        ),
        tests=(f"{TESTS}rows/test_environment.py::test_machine_versions_and_library_determine_the_id",),
    ),
    Fault(
        "a dropped cell",
        (
            Plant(
                f"{SUITE}spec/expansion.py", "    return list(cells.values())", "    return list(cells.values())[:-1]"
            ),
        ),
        metric="status",
        in_ci=True,
    ),
)

IN_THE_GATE = (
    Fault(
        "every machine taken for one on which the baseline was not checked",
        (
            Plant(
                f"{SUITE}analysis/baseline.py",
                '        return self.kinds is None or line.get("kind") is None or line["kind"] in self.kinds\n',
                "        return False\n",
            ),
        ),
        tests=(f"{KINDS}test_counts_must_be_equal_on_a_kind_that_was_checked",),
    ),
    Fault(
        "fixed steps allowed to differ on another kind of processor",
        (
            Plant(
                f"{SUITE}analysis/regression.py",
                '    return bool(was.get("adaptive")) and not baseline.knows(now)\n',
                "    return not baseline.knows(now)\n",
            ),
        ),
        tests=(f"{KINDS}test_fixed_steps_must_be_equal_on_every_kind",),
    ),
    Fault(
        "the largest ratio of the rounds compared in place of the least",
        (
            Plant(
                f"{SUITE}analysis/regression.py",
                "found[0] <= factor * before[1]",
                "found[1] <= factor * before[1]",
            ),
        ),
        tests=(f"{BACKWARD}test_one_slow_round_is_noise",),
    ),
    Fault(
        "the f calls inside VJPs counted twice",
        (
            Plant(
                f"{SUITE}analysis/backward_cost.py",
                "max(0, f_calls - vjps) * f_s + vjps * vjp_s",
                "f_calls * f_s + vjps * vjp_s",
            ),
        ),
        tests=(f"{BACKWARD}test_it_is_the_backward_time_over_the_bare_calls_of_each_round",),
    ),
)

FAULTS_OF_SUITE = (*IN_TABLES, *IN_FIGURES, *IN_MEASURING, *IN_THE_GATE)
