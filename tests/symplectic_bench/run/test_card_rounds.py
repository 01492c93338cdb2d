"""Rounds in which entrants take turns, by a made-up process; and the whole command on a faked card."""

import json
import os
import subprocess
import sys

import pytest

from symplectic_bench.commands.exit_codes import Exit
from symplectic_bench.run import card_rounds
from symplectic_bench.run.card_rounds import FEWEST_ROUNDS, measure_rows
from symplectic_bench.run.card_rows import EAGER, TORCHDIFFEQ, CardRow
from tests.clone import PYTHONPATH

NAMES = (EAGER, "ours backprop", TORCHDIFFEQ)
ROW = CardRow("tiny", "mlp", 4, {"width": 8}, tolerance=1e-3, contenders=NAMES)

# What the processes call. They import this module to find it.


def answer_in_order(questions, entrants, cache_dir):
    """Answer with the number of the question, so that samples show the order in which they were taken."""
    number = 0
    while True:
        what, i = questions.recv()
        number += what == "time"
        yield {"total_s": float(number)} if what == "time" else {what: i}


def answer_unless_backprop_is_timed(questions, entrants, cache_dir):
    while True:
        what, i = questions.recv()
        if what == "time" and entrants[i].cell.name == "ours backprop":
            os._exit(5)
        yield {"total_s": 1.0} if what == "time" else {what: i}


def answer_but_backprop_fails(questions, entrants, cache_dir):
    while True:
        what, i = questions.recv()
        failed = what == "launched" and entrants[i].cell.name == "ours backprop"
        yield {"status": "oom", "reason": "too large"} if failed else {"total_s": 1.0} if what == "time" else {what: i}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    def measure(answer, row=ROW):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr(card_rounds, "answer", answer)
        monkeypatch.setattr(card_rounds, "ROW_S", 0.0)
        (results,) = measure_rows([row], tmp_path, lambda line: None)
        return {one.name: one for one in results}

    return measure


def test_every_round_begins_with_another_entrant(measured):
    samples = [one.samples_s for one in measured(answer_in_order).values()]
    assert samples == [[1.0, 6.0, 8.0, 10.0, 15.0], [2.0, 4.0, 9.0, 11.0, 13.0], [3.0, 5.0, 7.0, 12.0, 14.0]]


def test_each_entrant_is_prepared_and_measured_before_times_are_taken(measured):
    found = measured(answer_in_order)
    assert [one.measured for one in found.values()] == [{p: i for p in PARTS} for i in range(3)]
    quick = measured(answer_in_order, CardRow("tiny", "mlp", 4, tolerance=1e-3, contenders=NAMES, thorough=False))
    assert [one.measured for one in quick.values()] == [{"prepare": i} for i in range(3)]


PARTS = ("memory", "prepare", "launched")


def test_an_entrant_that_kills_the_process_is_left_out_and_the_others_begin_again(measured):
    found = measured(answer_unless_backprop_is_timed)
    culprit = found.pop("ours backprop")
    assert culprit.status == "error" and "exit code 5" in culprit.reason
    assert [(one.status, one.samples_s) for one in found.values()] == [("ok", [1.0] * FEWEST_ROUNDS)] * 2


def test_an_entrant_that_fails_does_not_cost_the_others_their_times(measured):
    found = measured(answer_but_backprop_fails)
    culprit = found.pop("ours backprop")
    assert (culprit.status, culprit.reason, culprit.samples_s) == ("oom", "too large", [])
    assert all(len(one.samples_s) == FEWEST_ROUNDS for one in found.values())


def answer_until_one_fails(questions, entrants, cache_dir):
    """As on a card whose context is broken by the first failure: whatever is asked next fails too."""
    broken = False
    while True:
        what, i = questions.recv()
        broken = broken or (what == "prepare" and entrants[i].cell.name == EAGER)
        broken_answer = {"status": "error", "reason": "CUDA error"}
        yield broken_answer if broken else {"total_s": 1.0} if what == "time" else {what: os.getpid()}


def test_an_entrant_that_breaks_its_process_does_not_cost_the_others_theirs(measured):
    names = ("ours backprop", EAGER, TORCHDIFFEQ)
    found = measured(answer_until_one_fails, CardRow("tiny", "mlp", 4, tolerance=1e-3, contenders=names))
    assert (found[EAGER].status, found[EAGER].reason) == ("error", "CUDA error")
    first, last = found["ours backprop"].measured, found[TORCHDIFFEQ].measured
    assert first["memory"] != last["memory"] == first["prepare"]  # what the first process measured is kept
    assert [len(found[name].samples_s) for name in names] == [FEWEST_ROUNDS, 0, FEWEST_ROUNDS]


def test_what_is_not_installed_is_skipped_with_its_reason(measured, monkeypatch):
    monkeypatch.setattr("symplectic_bench.contenders.reasons.find_spec", lambda name: None)
    row = CardRow("tiny", "mlp", 4, tolerance=1e-3, contenders=(EAGER, "torchode backprop", "diffrax backprop"))
    found = measured(answer_in_order, row)
    assert [one.status for one in found.values()] == ["ok", "skipped", "skipped"]
    assert "torchode is not installed" in found["torchode backprop"].reason


PROGRAM = """
from tests.symplectic_bench import install_fake_card
from symplectic_bench.run import card_rounds, card_rows, processes
from symplectic_bench.run.card_rows import BARE, EAGER, TORCHDIFFEQ, CardRow
processes.PRELOAD = (*processes.PRELOAD, "tests.symplectic_bench.install_fake_card")
card_rounds.ROW_S = 0.0
names = (EAGER, TORCHDIFFEQ, *BARE)
card_rows.ROWS = (
    CardRow("one", "mlp", 4, {"width": 8}, tolerance=1e-3, contenders=names),
    CardRow("two", "mlp", 4, {"width": 8}, method="rk38", steps=100, contenders=(EAGER, "bare calls"), thorough=False),
)
from symplectic_bench.commands.app import app
app(["gpu-report", "--json", "report.json"])
"""


def test_the_command_prints_its_tables_and_writes_every_sample(tmp_path):
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == Exit.DONE, done.stdout + done.stderr
    assert "# One gradient on a card" in done.stdout and "## two" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["environment"]["torch"]
    found = {(row["row"], row["name"]): row for row in report["rows"]}
    captured = found.pop(("one", "captured bare calls"))  # nothing can be captured on a card that is not there
    assert captured["status"] == "error" and captured["reason"] and not captured["samples_s"]
    for row in found.values():
        assert row["status"] == "ok", row["reason"]
        assert len(row["samples_s"]) == FEWEST_ROUNDS and min(row["samples_s"]) > 0
    ours, calls = found["two", EAGER], found["two", "bare calls"]
    assert ours["steps"] == calls["steps"] == 100
    assert ours["f_calls"] == 4 * 100 + 7 * 100 - 3  # forward N s, backward N (2 s - 1) - (s - 1)
    assert found["one", EAGER]["peak_tensor_bytes"] > 0 and found["one", EAGER]["waits"] == 0
