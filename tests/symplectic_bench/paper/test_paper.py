"""The paper's experiments: they are valid at every scale, fit into their hour, and report their measurements."""

import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from symplectic_bench.analysis.claims import evaluate_claims
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.commands.app import app
from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.paper.experiments import EXPERIMENTS, claim_sentences
from symplectic_bench.paper.figures import against_symplectic, budgets, stages, tolerances
from symplectic_bench.paper.paper_report import PaperReport
from symplectic_bench.report.training_figures import agreement, calls, curves, training_figures
from symplectic_bench.report.training_tables import training_tables
from symplectic_bench.report.typesetting import to_latex, to_markdown
from symplectic_bench.rows.record import Measurement
from symplectic_bench.run.sweep import load_vocabulary, with_available_data
from symplectic_bench.spec.cell import ITERATIONS
from symplectic_bench.spec.expansion import expand
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suite import Scale, load_suite
from tests.symplectic_bench.sample_cells import make_cell

HOUR_S = 3600
SMOKE_S = 120


def suite_of(experiment, scale=Scale.CPU):
    suite = load_suite(experiment.source).at_scale(scale).on_device("cpu")  # where there is no other
    return with_available_data(suite, None) if suite.trains else suite


@pytest.mark.parametrize(
    ("experiment", "scale"),
    [(e, scale) for e in EXPERIMENTS for scale in e.scales],
    ids=lambda one: getattr(one, "name", one),
)
def test_every_experiment_expands_at_every_scale_that_it_has(experiment, scale):
    suite = suite_of(experiment, scale)
    assert expand(suite, load_vocabulary(suite.trains))


@pytest.mark.parametrize(("scale", "most"), [(Scale.CPU, HOUR_S), (Scale.SMOKE, SMOKE_S)])
def test_the_budgets_of_all_experiments_fit_into_the_total(scale, most):
    shares = {e.name: suite_of(e, scale).budget_s for e in EXPERIMENTS}
    assert sum(shares.values()) <= most, shares


def test_the_first_iterations_are_those_of_the_three_tables_of_trained_networks():
    first = [e for e in EXPERIMENTS if Scale.GPU_FIRST in e.scales]
    assert [e.name for e in first] == ["table2", "table3", "table4"]
    for experiment in first:
        suite = load_suite(experiment.source).at_scale(Scale.GPU_FIRST)
        assert suite.budget_s <= 240 and not suite.evaluate
        cells = expand(suite, load_vocabulary(trains=True))
        assert {(cell.device, cell.sizes_dict[ITERATIONS]) for cell in cells} == {("cuda", 3)}
        assert {"symplectic", "continuous", "aca", "baseline", "backprop"} <= {
            cell.gradient for cell in cells if cell.contender == "ours"
        }


def test_the_batches_of_the_flows_are_those_of_the_replications():
    suite = load_suite(next(e for e in EXPERIMENTS if e.name == "table2").source).at_scale(Scale.GPU_FIRST)
    cells = expand(suite, load_vocabulary(trains=True))
    batches = {(cell.sizes_dict["data"], cell.batch) for cell in cells}
    large, others = ("power", "hepmass", "bsds300"), ("gas", "miniboone", "mnist")
    assert batches == {(data, 10_000) for data in large} | {(data, 1_000) for data in others}
    assert {c.sizes_dict["nonlinearity"] for c in cells if c.sizes_dict["data"] == "bsds300"} == {"tanh"}


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if suite_of(e).trains], ids=lambda e: e.name)
def test_each_criterion_selects_cells_of_its_suite(experiment):
    suite = suite_of(experiment)
    cells = expand(suite, load_vocabulary(suite.trains))
    for claim in evaluate_claims(suite.claim, cells, []):
        for result in claim.criteria:
            assert result.evaluations[0].cells, result.criterion.name


def row(name="ours symplectic", iterations=3, losses=(3.0, 2.0, 1.0), metrics=None, **changes):
    contender, gradient = name.split()
    sizes = {"data": changes.pop("data", "synthetic-power"), ITERATIONS: iterations}
    cell = make_cell(problem="density", sizes=sizes, contender=contender, gradient=gradient, dtype="float32")
    measured = {
        "stages": 6,
        "steps_accepted": 5,
        "f_calls_forward": 32,
        "f_calls_backward": 50,
        "vjps_forward": 0,
        "vjps_backward": 30,
        "forward_s": 0.1,
        "backward_s": 0.2,
        "total_s": 0.3,
        "peak_tensor_bytes": 2**20,
        "losses": list(losses),
        "f_calls_samples": [82] * len(losses),
        "metrics": metrics,
    }
    given = {
        key: changes.pop(key)
        for key in list(changes)
        if key in Measurement.__dataclass_fields__ and key not in ("seed", "method", "dtype", "batch", "device")
    }
    cell = replace(cell, **changes)
    return Measurement.for_cell(cell, **{"status": Status.OK, **measured, **given})


class TestTables:
    def test_rows_are_gradients_and_groups_of_columns_are_data_sets(self):
        rows = [
            row(metrics={"nll": 1.5}),
            row("ours aca", iterations=2, losses=(3.0, 2.0), peak_tensor_bytes=3 * 2**20),
            row(data="synthetic-gas", metrics={"nll": 2.5}),
        ]
        (table,) = training_tables(summarize(rows), "here.", "table2", "Flows", ["a note"])
        assert table.groups == (("", 1), ("synthetic-power, N = 5", 5), ("synthetic-gas, N = 5", 5))
        assert table.headings[1:6] == ("nll", "MiB", "s/iteration", "f calls", "losses off")
        lines = {line[0]: line[1:] for line in table.sections[0].lines}
        assert lines["ours symplectic"] == (
            "1.50",
            "1.00",
            "0.300",
            "82",
            "0",
            "2.50",
            "1.00",
            "0.300",
            "82",
            "0",
        )
        assert lines["ours aca"] == ("-", "3.00", "0.300", "82", "0", *["-"] * 5)
        assert "synthetic-..: a mixture of five normal" in table.caption
        assert "a note" in table.sections[0].notes and "batch 3" in table.caption and "seeds 0" in table.caption

    @pytest.mark.parametrize(("device", "measured"), [("cpu", "first"), ("cuda", "second")])
    def test_the_caption_says_which_iteration_the_memory_is_of(self, device, measured):
        (table,) = training_tables(summarize([row(device=device)]), "here.")
        assert f"peak of live tensors in the {measured} iteration" in table.caption

    def test_several_seeds_are_shown_as_a_median_with_its_spread(self):
        rows = [row(metrics={"nll": nll}, seed=seed) for seed, nll in enumerate((1.0, 5.0, 2.0))]
        (table,) = training_tables(summarize(rows), "here.")
        assert table.sections[0].lines[0][1] == "2.00 [1.00, 5.00]"
        assert "seeds 0, 1, 2." in table.caption

    def test_costs_are_over_the_seeds_that_all_gradients_have(self):
        rows = [row(seed=seed, peak_tensor_bytes=mib * 2**20) for seed, mib in enumerate((1, 7, 9))]
        (table,) = training_tables(summarize([*rows, row("ours aca", peak_tensor_bytes=2 * 2**20)]), "here.")
        assert [line[1] for line in table.sections[0].lines] == ["1.00", "2.00"]
        assert "seeds 0, 1, 2 of ours symplectic where a spread is given, else seed 0" in table.caption

    def test_settings_of_the_same_name_are_distinguished(self):
        rows = [row(batch=3, metrics={"nll": 1.0}), row(batch=7, metrics={"nll": 9.0})]
        (table,) = training_tables(summarize(rows), "here.")
        assert [group for group, _ in table.groups] == [
            "",
            "synthetic-power, batch 3, N = 5",
            "synthetic-power, batch 7, N = 5",
        ]

    def test_a_remark_about_a_contender_appears_once(self):
        known = {"reason": "it computes times in float32"}
        rows = [row(), *(row("torchdiffeqpack aca", data=f"synthetic-{d}", **known) for d in ("power", "gas"))]
        (table,) = training_tables(summarize(rows), "here.")
        assert table.sections[0].notes == ("torchdiffeqpack aca: it computes times in float32",)

    def test_a_run_that_ended_early_shows_why(self):
        ended = row("torchdiffeq backprop", status=Status.TIMEOUT, reason="no result for 60 s", losses=(3.0,))
        (table,) = training_tables(summarize([row(), ended]), "here.")
        assert table.sections[0].lines[-1][1] == "1.00 timeout"

    def test_medians_are_over_the_iterations_that_all_gradients_have(self):
        """symplectic's third iteration is expensive, but aca has made only two."""
        longer = {"total_samples_s": [9.0, 0.5, 7.0], "cold_iterations": [0], "f_calls_samples": [80, 82, 300]}
        shorter = {"total_samples_s": [8.0, 0.25], "cold_iterations": [0], "f_calls_samples": [80, 82]}
        rows = [row(**longer), row("ours aca", iterations=2, losses=(3.0, 2.0), **shorter)]
        (table,) = training_tables(summarize(rows), "here.")
        shown = [line[2:5] for line in table.sections[0].lines]
        assert shown == [("0.500", "-", "80"), ("0.250", "0.500 [0.500, 0.500]", "80")]

    def test_times_are_compared_iteration_by_iteration_without_the_first_of_a_process(self):
        ours = {"total_samples_s": [9.0, 0.5, 0.5, 2.0], "cold_iterations": [0], "losses": (4.0, 3.0, 2.0, 1.0)}
        theirs = ours | {"total_samples_s": [1.0, 0.25, 1.0, 3.0]}
        counts = {"f_calls_samples": [80] * 4, "steps_samples": [5] * 4, "iterations": 4}
        rows = [row(**ours, **counts), row("ours aca", **theirs, **counts)]
        (table,) = training_tables(summarize(rows), "here.")
        assert table.sections[0].lines[1][3] == "1.50 [0.500, 2.00]"
        assert "no verdict" in table.caption

    def test_more_than_three_settings_make_a_second_table(self):
        rows = [row(data=f"synthetic-{name}") for name in ("power", "gas", "hepmass", "bsds300")]
        one, other = training_tables(summarize(rows), "here.", "table2", "Flows")
        assert (one.name, other.name) == ("table2", "table2-2") and len(one.groups) == len(other.groups) == 3

    def test_failures_are_listed_with_their_reasons(self):
        failed = row("torchdiffeq backprop", status=Status.DIVERGED, reason="underflow in dt", losses=(), total_s=None)
        failed = replace(failed, peak_tensor_bytes=None, losses=None)
        (table,) = training_tables(summarize([row(), failed]), "here.")
        assert table.sections[0].lines[-1][1] == "diverged"
        assert "torchdiffeq backprop on synthetic-power: diverged: underflow in dt" in table.sections[0].notes

    def test_markdown_and_latex_show_the_groups(self):
        (table,) = training_tables(summarize([row(metrics={"nll": 1.5})]), "here.")
        latex, markdown = to_latex(table), to_markdown(table)
        assert r"\multicolumn{5}{c}{synthetic-power, N = 5}" in latex
        body = [line for line in markdown.splitlines() if line.startswith("|")]
        assert "synthetic-power, N = 5" in body[0] and body[2].startswith("| gradient | nll |")
        assert len({line.count("|") for line in body}) == 1


class TestFigures:
    def test_losses_are_compared_side_by_side(self):
        rows = [row(), row("ours aca", losses=(3.0, 2.0, 1.0)), row("ours continuous", losses=(3.0, 2.2, 1.0))]
        figure = agreement(lines_of(summarize(rows)), "here.")
        (panel,) = figure.rows[0]
        assert [s.name for s in panel.series] == ["ours continuous"]  # aca's are the same bits
        assert panel.series[0].x == (2,) and panel.series[0].y == pytest.approx((0.1,))
        assert panel.headline is None, "the exact gradients' losses are equal"

    def test_the_title_bounds_the_difference_of_gradients_that_are_exact_for_the_same_steps(self):
        others = {"aca": 2.0 * (1 + 2e-7), "reversible": 2.1, "continuous": 2.2}
        rows = [row(), *(row(f"ours {name}", losses=(3.0, loss, 1.0)) for name, loss in others.items())]
        (panel,) = agreement(lines_of(summarize(rows)), "here.").panels
        assert str(panel.headline) == "exact gradients: losses within 2e-07 of symplectic's"

    def test_curves_show_the_longest_runs(self):
        rows = [row(), row("ours aca", iterations=1, losses=(3.0,))]
        (panel,) = curves(lines_of(summarize(rows)), "here.").rows[0]
        assert [s.name for s in panel.series] == ["ours symplectic"] and panel.series[0].x == (1, 2, 3)

    def test_calls_are_drawn_if_they_change(self):
        assert not calls(lines_of(summarize([row()])), "here.").rows
        stiffer = row(f_calls_samples=[82, 90, 200])
        (panel,) = calls(lines_of(summarize([stiffer])), "here.").panels
        assert str(panel.headline) == "symplectic: up to 2.5 times the calls of the first iteration"

    def test_multiples_are_relative_to_symplectic(self):
        rows = [row(), row("ours aca", peak_tensor_bytes=3 * 2**20, total_s=0.15)]
        time, memory = against_symplectic(summarize(rows), "here.").rows[0]
        assert time.series[0].y == pytest.approx((0.5,)) and memory.series[0].y == pytest.approx((3.0,))

    def test_memory_over_stages_is_sorted_by_stages(self):
        rows = [row(method=m, stages=s, peak_tensor_bytes=s * 2**20) for m, s in (("dopri8", 13), ("bosh3", 3))]
        (panel,) = stages(summarize(rows), "here.").rows[0]
        assert panel.series[0].x == (3, 13) and panel.series[0].y == (3, 13)

    def test_a_budget_is_the_number_of_kept_states(self):
        def fixed(gradient, calls):
            cell = make_cell(gradient=gradient, rtol=None, atol=None, steps=20)
            counts = {"f_calls_forward": 80, "f_calls_backward": calls, "stages": 4, "steps_accepted": 20}
            return Measurement.for_cell(cell, status=Status.OK, peak_tensor_bytes=2**20, total_s=1.0, **counts)

        rows = [fixed("revolve-5", 300), fixed("revolve-2", 500), fixed("symplectic", 137), fixed("stages", 80)]
        panel = budgets(summarize(rows), "here.").rows[0][0]
        assert [(s.name, s.x, s.y) for s in panel.series] == [
            ("ours revolve-N", (2, 5), (580, 380)),
            ("ours symplectic", (20,), (217,)),
            ("ours stages", (80,), (160,)),
        ]

    def test_steps_of_the_backward_solve_are_shown(self):
        rows = []
        for rtol in (1e-2, 1e-4):
            for gradient, back in (("symplectic", None), ("continuous", 40)):
                cell = make_cell(gradient=gradient, rtol=rtol, atol=rtol)
                found = {"steps_accepted": 10, "steps_backward": back, "error_true": 1e-3, "total_s": 1.0}
                rows.append(Measurement.for_cell(cell, status=Status.OK, peak_tensor_bytes=2**20, **found))
        steps = tolerances(summarize(rows), "here.").panels[1]
        assert {s.name: s.y for s in steps.series} == {"ours symplectic": (10, 10), "ours continuous": (40, 40)}


def test_a_claims_outcome_is_a_sentence():
    suite = load_suite(next(e for e in EXPERIMENTS if e.name == "table3").source)
    sentences = claim_sentences(evaluate_claims(suite.claim, [], []))
    assert len(sentences) == len(suite.claim) and all("was not measured" in s for s in sentences)


class TestCommand:
    @pytest.fixture
    def paper(self, tmp_path):
        def run(*arguments):
            folders = ["--results", str(tmp_path / "results"), "--plots", str(tmp_path / "plots")]
            return CliRunner().invoke(app, ["paper", *arguments, *folders], catch_exceptions=False)

        return run

    def test_one_command_measures_reports_and_resumes(self, paper, tmp_path):
        done = paper("masses", "budget", "--scale", "smoke")
        assert done.exit_code == Exit.DONE, done.output
        report = PaperReport.within(Scale.SMOKE, tmp_path / "results", tmp_path / "plots")
        assert {p.name for p in report.results.glob("*.*")} >= {
            f"{name}.{form}" for name in ("masses", "budget") for form in ("md", "csv", "tex")
        }
        figures = {p.name for p in report.plots.iterdir()}
        assert {
            f"{name}.{form}" for name in ("budget", "masses-curves", "memory_flow") for form in ("svg", "pdf", "png")
        } <= figures
        page = (report.results / "README.md").read_text()
        linked = re.findall(r"\]\(([^)]+\.svg)\)", page)
        assert linked and all((report.results / link).exists() for link in linked)
        assert "scale smoke" in page and "PNODE" in page
        again = paper("masses", "budget", "--scale", "smoke")
        assert again.output.count(": 0 of ") == 2
        shown = paper("masses", "--scale", "smoke", "--show")
        assert shown.exit_code == Exit.DONE and "to measure" not in shown.output

    def test_a_missing_data_folder_is_bad_usage(self, paper, tmp_path):
        refused = paper("table2", "--scale", "smoke", "--data-dir", str(tmp_path / "nowhere"))
        assert refused.exit_code == Exit.USAGE and "no such folder" in refused.output

    def test_a_pickle_in_the_data_folder_is_bad_usage(self, paper, tmp_path):
        (tmp_path / "data/gas").mkdir(parents=True)
        (tmp_path / "data/gas/ethylene_CO.pickle").write_bytes(b"")
        refused = paper("table3", "--scale", "smoke", "--data-dir", str(tmp_path / "data"))
        assert refused.exit_code == Exit.USAGE and "never read" in refused.output

    @pytest.mark.parametrize(
        ("options", "words"),
        [(["--show", "--fresh"], "--fresh affects measurements"), (["--environment", "abc"], "add --show")],
    )
    def test_an_option_without_effect_is_bad_usage(self, paper, options, words):
        refused = paper("masses", *options)
        assert refused.exit_code == Exit.USAGE and words in refused.output

    def test_rows_of_another_environment_are_on_the_page_too(self, paper, tmp_path):
        assert paper("budget", "--scale", "smoke").exit_code == Exit.DONE
        rows = tmp_path / "results/paper-smoke/rows/budget-smoke"
        (folder,) = rows.iterdir()
        folder.rename(rows / "0123456789ab")
        assert paper("precision", "--scale", "smoke").exit_code == Exit.DONE
        page = (tmp_path / "results/paper-smoke/README.md").read_text()
        assert "PNODE" in page and "midpoint" in page

    def test_an_experiment_killed_before_its_first_row_has_nothing_to_show(self, paper, tmp_path):
        assert paper("precision", "--scale", "smoke").exit_code == Exit.DONE
        (rows,) = (tmp_path / "results/paper-smoke/rows/precision-smoke").glob("*/rows.jsonl")
        rows.write_text("")
        assert paper("precision", "--scale", "smoke", "--show").exit_code == Exit.NOTHING_RAN

    def test_showing_an_unmeasured_experiment_is_nothing_ran(self, paper):
        assert paper("table2", "--show").exit_code == Exit.NOTHING_RAN


def test_names_of_figures_start_with_the_experiments():
    assert {
        f.name for f in training_figures(summarize([row(), row("ours aca", losses=(3, 2, 1.5))]), "here.", "table2")
    } == {
        "table2-curves",
        "table2-agreement",
    }


def test_without_rows_there_is_no_table():
    assert training_tables(summarize([]), "here.") == []
