"""The suite of users' questions: what it asks, of whom, and at what size."""

import pytest

from symplectic_bench.analysis.verdicts import rounds_needed
from symplectic_bench.contenders.contender_records import contender_record
from symplectic_bench.run.sweep import cells_of_suite, load_vocabulary
from symplectic_bench.spec.expansion import asked_questions
from symplectic_bench.spec.suite import Scale, load_suite

SUITE = load_suite("peers")

every_scale = pytest.mark.parametrize("scale", [Scale.SMOKE, Scale.CPU])


def test_it_asks_what_users_ask():
    asked = [question.title for question in asked_questions(SUITE, load_vocabulary())]
    for word in ("fastest at this size", "memory at this time", "accurate", "1,000 outputs", "long horizons"):
        assert any(word in title for title in asked), word
    for word in (
        "fastest in 30 solves of one step",
        "a cell between 30 solves of one step",
        "irregular times",
        "many parameters and one sample",
        "Hutchinson",
        "exact trace",
        "convolution",
        "stiff",
    ):
        assert any(word in title for title in asked), word


@every_scale
def test_every_block_asks_a_question_of_ours_and_of_a_peer(scale):
    for block in SUITE.at_scale(scale).block:
        assert block.question
        assert {True, False} == {contender_record(name).ours for name in block.contenders}


@every_scale
def test_it_expands_within_its_limits(scale):
    suite = SUITE.at_scale(scale)
    cells = cells_of_suite(suite)
    assert len(cells) <= suite.max_cells
    assert suite.budget_s <= (120 if scale is Scale.SMOKE else 3600)


@every_scale
def test_its_rounds_are_enough_for_the_verdicts_of_every_table(scale):
    suite = SUITE.at_scale(scale)
    cells = cells_of_suite(suite)
    for question in asked_questions(suite, load_vocabulary()):
        peers = [c for c in cells if c.group_id in question.ours and not contender_record(c.contender).ours]
        assert suite.repeats >= rounds_needed(len(peers)), question.title


def test_it_names_every_contender_that_is_another_library():
    named = {name for block in SUITE.block for name in block.contenders}
    assert {"torchdiffeq", "torchdiffeqpack", "torchode", "diffrax", "diffrax-reversible", "zuko", "torchdyn"} <= named
    assert {"rampde", "pnode", "paper", "ours-compiled"} <= named
