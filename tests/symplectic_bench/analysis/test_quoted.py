"""Marks beside the numbers of a document: which number of the rows they choose, and what is wrong about them."""

import json
from dataclasses import replace

import pytest

from symplectic_bench.analysis.paired import Ratio
from symplectic_bench.analysis.quoted import QuotedRows, WrongQuote, corrected, find_quotes, quoted_value, wrong_quotes
from tests.symplectic_bench.sample_rows import a_cell, a_row

COMMIT = "0123456789ab"
ROUNDS = {"ours": [1.0, 2.0, 3.0], "torchdiffeq": [2.0, 3.0, 4.0], "paper": [4.0, 4.0, 4.0]}
"""Times of the rounds by contender: ours over torchdiffeq's is 0.667 [0.5, 0.75]."""


def rows():
    for width in (64, 256):
        for contender, times in ROUNDS.items():
            cell = a_cell(contender=contender, gradient="backprop", sizes=(("state", 32), ("width", width)))
            row = a_row(
                cell,
                total_s=times[1],
                error_discrete=3.21e-16 * width,
                peak_tensor_bytes=width * 2**14,
                metrics={"accuracy": 0.9},
            )
            yield replace(row, forward_samples_s=times, backward_samples_s=[1e-12] * 3)


def write_rows(results):
    folder = results / "small" / ("e" * 12)
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"commit": COMMIT}))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows()))


@pytest.fixture
def known(tmp_path):
    write_rows(tmp_path)
    return QuotedRows(tmp_path)


def faults(text, known):
    return wrong_quotes(find_quotes(text, "page.md"), known)


@pytest.mark.parametrize(
    "text",
    [
        "2<!-- = small@0123456; ours backprop, width=64; total_s -->",
        "2,000<!-- = small@0123456; ours backprop, width=64; total_s in ms --> ms",
        "1.0<!-- = small@0123456; ours backprop, width=64; peak_tensor_bytes in MiB --> MiB",
        "| **2.05e-14**<!-- = small@0123456; ours backprop, width=64; error_discrete --> |",
        "0.667 [0.500, 0.750]<!-- = small@0123456; ours backprop, width=64 / torchdiffeq backprop; total_s -->",
        "0.667\n[0.5, 0.75]<!-- = small@0123456;\nours backprop, width=64 / contender=torchdiffeq;\ntotal_s -->",
        "0.67 [0.50, 0.75]<!-- = small@0123456; ours backprop, width=64; time_over_peer -->",
        "4.0<!-- = small@0123456; paper backprop, width=256 / width=64; peak_tensor_bytes --> times",
        "2.1e-14<!-- = small@0123456; contender=ours or paper; least error_discrete --> at the least",
        "90<!-- = small@0123456; ours backprop, width=64; accuracy in % --> %",
        "0.67<!-- = small@0123456; ours backprop / contender=torchdiffeq; mean total_s --> on average",
        "<!-- rows wide: small@0123456; width=256 -->\n8.2e-14<!-- = wide; ours backprop; error_discrete -->",
    ],
)
def test_a_number_of_the_rows_is_right(text, known):
    assert len(find_quotes(text, "page.md")) == 1 and faults(text, known) == []


@pytest.mark.parametrize(
    ("written", "mark", "why"),
    [
        ("2.1", "small@0123456; ours backprop, width=64; total_s", "the row says 2"),
        ("0.66 [0.50, 0.75]", "small@0123456; ours backprop, width=64 / contender=torchdiffeq; total_s", "0.667 [0.5,"),
        ("0.67 [0.50, 0.76]", "small@0123456; ours backprop, width=64 / contender=torchdiffeq; total_s", "0.667 [0.5,"),
        ("0.67 (0.50 to 0.75)", "small@0123456; ours backprop, width=64; time_over_peer", "0.667 [0.5, 0.75]"),
        ("0.67", "small@0123456; ours backprop, width=64; time_over_peer", "0.667 [0.5, 0.75]"),
        ("2 [1, 3]", "small@0123456; ours backprop, width=64; total_s", "without limits"),
        ("2", "small@0123456; ours backprop, width=65; total_s", "no cell fulfils"),
        ("2", "small@0123456; ours backprop; total_s", "2 cells fulfil the conditions, among them ours backprop of"),
        ("2", "small@0123456; ours backprop, width=64 / seed=0, contender=paper or ours; total_s", "of the divisor"),
        ("2", "small@0123456; ours backprop, width=64 / width=128; total_s", "no cell chosen has 'total_s'"),
        ("2", "small@0123456; ours backprop, width=64; wall_s", "'wall_s' is no column"),
        ("2", "small@0123456; ours backprop, breadth=64; total_s", "'breadth' is no column"),
        ("2", "small@0123456; ours backprop, width=64; compile_s", "no cell chosen has 'compile_s'"),
        ("2", "small@0123456; ours backprop, width=64; least total_s", "'least' is of one cell"),
        ("2", "small@0123456; ours backprop; median total_s", "'median' is none of"),
        ("2", "small@0123456; ours backprop, width=64; total_s in hours", "'hours' is none of"),
        ("2", "small@76543; ours backprop, width=64; total_s", "name one that is there (small@0123456)"),
        ("2", "small; ours backprop, width=64; total_s", "name one that is there (small@0123456)"),
        ("2", "large@0123456; ours backprop, width=64; total_s", "no rows there"),
        ("2", "small@0123456; total_s", "a mark is <rows>; <cell>; <column>"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(written, mark, why, known):
    (fault,) = faults(f"First line.\nThen {written}<!-- = {mark} -->.", known)
    assert fault.startswith(f"page.md:2: {written} is wrong: ") and why in fault


@pytest.mark.parametrize(
    ("value", "written", "right"),
    [
        (3396.4, "3400", True),
        (3396.4, "3,400", True),
        (3396.4, "3390", False),
        (3396.4, "3396", True),
        (39_349.0, "39,300", True),
        (104.0, "100", False),
        (0.0851, "0.085", True),
        (0.0856, "0.085", False),
        (-1.25e-7, "−1.2e-7", True),
    ],
)
def test_a_number_is_right_to_its_last_digit(value, written, right, known):
    (row,) = [row for row in rows() if row.contender == "ours" and row.cell.sizes_dict["width"] == 64]
    (known.results / "small" / ("e" * 12) / "rows.jsonl").write_text(json.dumps(replace(row, loss=value).to_json()))
    found = faults(f"{written}<!-- = small@0123; width=64; loss -->", known)
    assert (found == []) is right


def test_a_mark_that_follows_no_number_is_an_error(known):
    with pytest.raises(WrongQuote, match=r"page.md:1: no number stands right before the mark 'small@0123456"):
        find_quotes("2 ms<!-- = small@0123456; ours backprop, width=64; total_s in ms -->", "page.md")


def test_the_ratio_of_trained_networks_is_that_of_their_iterations(known):
    cells = [replace(row, losses=[1.0, 0.5, 0.4], total_samples_s=row.forward_samples_s) for row in rows()]
    text = "".join(json.dumps(row.to_json()) + "\n" for row in cells)
    (known.results / "small" / ("e" * 12) / "rows.jsonl").write_text(text)
    ratio = quoted_value("small@0123456; paper backprop, width=64 / contender=torchdiffeq; total_s", known)
    assert ratio == Ratio(4 / 3, 1.0, 2.0, rounds=0)


@pytest.mark.parametrize(
    ("written", "mark", "right"),
    [
        ("3", "ours backprop, width=64; total_s", "2"),
        ("**3.0**", "ours backprop, width=64; total_s", "**2.0**"),
        ("1,234", "ours backprop, width=64; total_s in ms", "2,000"),
        ("1.0e-5", "ours backprop, width=64; error_discrete", "2.1e-14"),
        ("0.5 [0.4, 0.6]", "ours backprop, width=64 / contender=torchdiffeq; total_s", "0.67 [0.50, 0.75]"),
        ("0.67", "ours backprop, width=64; time_over_peer", "0.67 [0.50, 0.75]"),
        ("0.7 (0.4 to 0.6)", "ours backprop, width=64; time_over_peer", "0.67 [0.50, 0.75]"),
        ("2.00", "ours backprop, width=64; total_s", "2.00"),
    ],
)
def test_wrong_numbers_are_replaced_by_those_of_the_rows(written, mark, right, known):
    comment = f"<!-- = small@0123456; {mark} -->"
    found = corrected(f"First {written}{comment}, and 4<!-- = small@0123456; {mark} --> again.", "page.md", known)
    assert found.startswith(f"First {right}{comment}, and ") and faults(found, known) == []
