"""Answers to questions on synthetic rounds: verdicts on times alone and on two costs, and their order."""

from dataclasses import replace

import numpy as np
import pytest

from symplectic_bench.analysis.questions import COST, TIME, answer
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.analysis.verdicts import Verdict
from symplectic_bench.spec.question import AskedQuestion
from symplectic_bench.spec.status import Status
from tests.symplectic_bench.sample_rows import a_cell, a_row

OURS = ("ours", "symplectic")
COSTS = {
    OURS: (1.0, 100, 1e-6),
    ("ours", "backprop"): (0.3, 900, 1e-6),
    ("torchdiffeq", "backprop"): (0.5, 50, 1e-6),
    ("torchdiffeq", "continuous"): (1.0, 200, 1e-4),
    ("torchdiffeqpack", "aca"): (0.6, 200, 1e-6),
    ("torchode", "backprop"): (2.0, 50, 1e-7),
    ("diffrax", "backprop"): (0.25, 100, 1e-4),
}
"""Time, bytes and true error of each: one that is behind in both, before in both, and so on."""


def rows(rounds=12, **changes):
    rng, found = np.random.default_rng(0), []
    for (contender, gradient), (time, memory, error) in COSTS.items():
        times = time * np.exp(rng.normal(0, 0.01, rounds))
        row = a_row(a_cell(contender=contender, gradient=gradient, **changes), total_s=float(np.median(times)))
        own = {"peak_tensor_bytes": memory, "error_true": error}
        found.append(replace(row, forward_samples_s=list(times / 2), backward_samples_s=list(times / 2), **own))
    return found


def asked(by, found, ours="ours symplectic"):
    return AskedQuestion("Which?", by, {row.group_id: ours for row in found})


def answered(by, found=None, ours="ours symplectic"):
    found = found or rows()
    return {line["name"]: line for line in answer(asked(by, found, ours), lines_of(summarize(found)))}


def verdicts(by, found=None):
    return {name: line["verdict"] for name, line in answered(by, found).items()}


def test_by_time_our_greatest_loss_comes_first():
    assert list(verdicts("time").items()) == [
        ("ours symplectic", None),
        ("diffrax backprop", Verdict.BEHIND),
        ("torchdiffeq backprop", Verdict.BEHIND),
        ("torchdiffeqpack aca", Verdict.BEHIND),
        ("torchdiffeq continuous", Verdict.LEVEL),
        ("torchode backprop", Verdict.FIRST),
        ("ours backprop", None),
    ]
    line = answered("time")["torchdiffeq backprop"]
    assert line[TIME] == pytest.approx(2, rel=0.03) and line[f"{TIME}_low"] < line[TIME] < line[f"{TIME}_high"]
    assert line[COST] is None


def test_by_memory_more_of_one_and_no_less_of_the_other_is_behind():
    assert verdicts("memory") == {
        "ours symplectic": None,
        "torchdiffeq backprop": Verdict.BEHIND,  # more memory, more time
        "diffrax backprop": Verdict.BEHIND,  # the same memory, more time
        "torchdiffeqpack aca": Verdict.TRADE,  # less memory, more time
        "torchode backprop": Verdict.TRADE,  # more memory, less time
        "torchdiffeq continuous": Verdict.FIRST,  # less memory, the same time
        "ours backprop": None,
    }
    assert answered("memory")["torchdiffeq backprop"][COST] == 2


def test_by_error_the_more_accurate_at_the_same_time_is_first():
    found = verdicts("error")
    assert found["torchdiffeq continuous"] is Verdict.FIRST and found["diffrax backprop"] is Verdict.TRADE
    assert found["torchdiffeq backprop"] is Verdict.BEHIND  # as accurate, and faster


def test_another_of_ours_may_stand_for_ours():
    found = answered("time", ours="ours backprop")
    assert found["torchdiffeq backprop"]["verdict"] is Verdict.FIRST and found["ours symplectic"]["verdict"] is None
    assert next(iter(found)) == "ours backprop"


def test_what_failed_or_solved_another_problem_is_not_compared():
    found = rows()
    changes = {2: {"forward_disagrees": True, "forward_error": 1e4}, 3: {"status": Status.OOM, "total_s": None}}
    for place, change in changes.items():
        found[place] = replace(found[place], **change)
    assert list(verdicts("time", found).items())[-2:] == [
        ("torchdiffeq backprop", None),
        ("torchdiffeq continuous", None),
    ]


def test_nothing_is_compared_if_ours_failed():
    found = rows()
    found[0] = replace(found[0], status=Status.TIMEOUT, total_s=None)
    assert set(verdicts("time", found).values()) == {None}


def test_an_exact_peak_is_not_compared_with_a_fitted_one():
    found = rows()
    found[2] = replace(found[2], peak_tensor_source="fit")
    assert verdicts("memory", found)["torchdiffeq backprop"] is None


def test_few_rounds_have_no_verdict():
    assert set(verdicts("memory", rows(rounds=9)).values()) == {None, Verdict.NO_VERDICT}


def test_holms_correction_is_for_the_comparisons_of_the_question_alone():
    """Twelve rounds allow for 102 comparisons; 150 others, in groups that are not asked about, do not count."""
    elsewhere = [row for seed in range(1, 31) for row in rows(seed=seed)]
    lines = lines_of(summarize([*rows(), *elsewhere]))
    here = [line["verdict"] for line in answer(asked("time", rows()), lines)]
    assert Verdict.BEHIND in here and len(here) == len(COSTS)
    everywhere = [line["verdict"] for line in answer(asked("time", [*rows(), *elsewhere]), lines)]
    assert set(everywhere) == {None, Verdict.NO_VERDICT}


def test_groups_stay_in_the_order_of_the_rows():
    found = [*rows(seed=1), *rows(seed=0)]
    order = [line["seed"] for line in answer(asked("time", found), lines_of(summarize(found)))]
    assert order == [1] * len(COSTS) + [0] * len(COSTS)
