"""The share of mutants killed, and its interval."""

from collections import Counter

import pytest

from tests.mutation.score import share, table, wilson


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    # R. G. Newcombe, Confidence intervals for the single proportion, Statist. Med. 17 (1998) 857-872, table I.
    [
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_that_of_the_literature(share, n, low, high):
    # Four digits are printed there.
    assert wilson(share, n) == pytest.approx((low, high), abs=5e-5)


def test_no_draw_says_nothing():
    assert wilson(1.0, 0) == (0.0, 1.0)


def test_time_limits_kill_and_equivalent_mutants_do_not_count():
    assert share(Counter(killed=5, timeout=1, survived=2, equivalent=90, invalid=9)) == 0.75
    assert share(Counter(equivalent=1)) == 1.0


def test_a_table_has_each_number_under_its_heading():
    head, _, row = table({"steps": Counter(killed=5, timeout=1, survived=2, equivalent=4)}, {"steps": 99}).splitlines()
    cells = dict(zip(split(head), split(row), strict=True))
    assert cells == {
        "folder": "steps",
        "mutants": "99",
        "tried": "8",
        "killed": "6",
        "by time limit": "1",
        "survived": "2",
        "equivalent": "4",
        "killed, %": "75.0",
        "95 % interval": "40.9 to 92.9",
    }


def split(line):
    return [cell.strip() for cell in line.strip("|").split("|")]
