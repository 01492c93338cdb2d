"""Verdicts on synthetic rounds: known differences are seen, ties are level, and few rounds have none."""

import math
from dataclasses import replace

import numpy as np
import pytest

from symplectic_bench.analysis.sign_flip import p_value
from symplectic_bench.analysis.summary import lines_of, summarize
from symplectic_bench.analysis.verdicts import (
    ERROR_RATE,
    Verdict,
    holm,
    rounds_needed,
    smallest_ratios,
    verdicts,
)
from tests.symplectic_bench.sample_rows import a_cell, a_row

PEER = ("torchdiffeq", "backprop")


def timed(multiples, rounds=12, spread=0.02, seed=0):
    """Return lines of contenders whose times are these multiples of the peer's, with noise and a shared drift."""
    rng = np.random.default_rng(seed)
    drift = np.exp(rng.normal(0, 0.3, rounds))
    rows = []
    for (contender, gradient), multiple in {PEER: 1.0, **multiples}.items():
        times = multiple * drift * np.exp(rng.normal(0, spread, rounds))
        row = a_row(a_cell(contender=contender, gradient=gradient), total_s=float(np.median(times)))
        rows.append(replace(row, forward_samples_s=list(0.4 * times), backward_samples_s=list(0.6 * times)))
    return lines_of(summarize(rows))


def judged(lines):
    return {line["name"]: verdict for line, verdict in zip(lines, verdicts(lines), strict=True)}


THREE = {("ours", "symplectic"): 0.8, ("ours", "aca"): 1.0, ("ours", "stages"): 1.25}


def test_a_known_ratio_is_recovered_and_judged():
    lines = timed(THREE, seed=1)
    found = judged(lines)
    assert found == {
        "ours symplectic": Verdict.FIRST,
        "ours aca": Verdict.LEVEL,
        "ours stages": Verdict.BEHIND,
        "torchdiffeq backprop": None,
    }
    for line in lines:
        if line["name"] != "torchdiffeq backprop":
            multiple = THREE["ours", line["gradient"]]
            assert line["time_over_peer"] == pytest.approx(multiple, rel=0.03)
            assert line["time_over_peer_low"] <= line["time_over_peer"] <= line["time_over_peer_high"]


def test_fewer_than_ten_rounds_have_no_verdict_however_clear():
    found = judged(timed({("ours", "symplectic"): 0.5}, rounds=9))
    assert found["ours symplectic"] is Verdict.NO_VERDICT


def test_so_many_comparisons_that_agreement_of_all_rounds_proves_nothing_have_no_verdict():
    """Ten rounds have p = 2/1024 at the least, enough for 25 comparisons and not for 26."""
    (line,) = [one for one in timed({("ours", "symplectic"): 0.5}, rounds=10) if one["contender"] == "ours"]
    assert set(verdicts([line] * 25)) == {Verdict.FIRST}
    assert set(verdicts([line] * 26)) == {Verdict.NO_VERDICT}
    assert smallest_ratios([line] * 25) and not smallest_ratios([line] * 26)
    assert [rounds_needed(n) for n in (0, 25, 26, 51, 52)] == [10, 10, 11, 11, 12]


def test_equal_times_are_wrongly_told_apart_in_at_most_one_table_of_twenty():
    """Of 200 tables of six equal contenders; with Holm's correction 10 +- 3 at the most."""
    six = {("ours", g): 1.0 for g in ("symplectic", "aca", "stages", "baseline", "backprop", "continuous")}
    wrong = sum({Verdict.FIRST, Verdict.BEHIND} & set(verdicts(timed(six, seed=seed))) != set() for seed in range(200))
    assert wrong <= 200 * ERROR_RATE + 9


def test_the_smallest_ratio_is_seen_in_four_tables_of_five():
    spread, alone = 0.02, ("ours", "symplectic")
    smallest = [one for seed in range(50) for one in smallest_ratios(timed({alone: 1.0}, spread=spread, seed=seed))]
    ratio = math.exp(np.mean(np.log(smallest)))
    seen = [judged(timed({alone: ratio}, spread=spread, seed=1000 + s))["ours symplectic"] for s in range(300)]
    assert seen.count(Verdict.BEHIND) / 300 == pytest.approx(0.8, abs=0.1)


def test_two_disturbed_rounds_of_twelve_leave_no_verdict_rather_than_a_level():
    """The median of the ratios is 1.3 in ten rounds, which its interval shows, and 0.5 in two."""
    (line,) = [one for one in timed({("ours", "symplectic"): 1.3}, rounds=12) if one["contender"] == "ours"]
    logs = np.log([1.3] * 10 + [0.4, 0.5])
    disturbed = {**line, "time_over_peer_p_value": p_value(logs), "time_over_peer_mean": float(np.exp(logs.mean()))}
    assert verdicts([line]) == [Verdict.BEHIND] and line["time_over_peer_low"] > 1.0
    assert verdicts([disturbed]) == [Verdict.NO_VERDICT]
    assert verdicts([{**disturbed, "time_over_peer_low": 0.9}]) == [Verdict.LEVEL]


def test_rows_that_were_not_timed_in_turns_have_a_ratio_and_no_verdict():
    ours, peer = (a_row(a_cell(contender=c, gradient="backprop")) for c in ("ours", "torchdiffeq"))
    times = {"forward_samples_s": [0.1] * 12, "backward_samples_s": [0.1] * 12, "total_s": 0.2}
    apart = [replace(ours, **times), replace(peer, **times, f_call_s=5e-5)]  # another process, another time
    line = next(one for one in lines_of(summarize(apart)) if one["contender"] == "ours")
    assert (line["time_over_peer"], line["time_over_peer_low"]) == (1.0, None)
    assert verdicts([line]) == [Verdict.NO_VERDICT]


def test_the_floor_is_no_competitor():
    lines = timed({("floor", "symplectic"): 0.5, ("ours", "symplectic"): 0.8})
    assert judged(lines)["floor symplectic"] is None


def test_holm_by_hand():
    """Of 0.01, 0.04, 0.03, 0.005: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 not below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
