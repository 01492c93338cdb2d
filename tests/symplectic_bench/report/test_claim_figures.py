"""The figure of claims, from results made by hand."""

import pytest

from symplectic_bench.analysis.claims import ClaimResult
from symplectic_bench.analysis.criteria import CriterionResult, Evaluation
from symplectic_bench.report.claim_figures import claim_figure
from symplectic_bench.report.render import draw
from symplectic_bench.spec.criteria import Claim, Criterion

CELLS = {"problem": ["kepler"]}


def claim(point, name, *criteria):
    """Return a claim with criteria (limits, values)."""
    own = [
        Criterion.model_validate({"name": f"criterion {i}", "cells": CELLS, "measure": "f_calls", **limits})
        for i, (limits, _) in enumerate(criteria)
    ]
    results = [
        CriterionResult(one, tuple(Evaluation(one, "", "", value, axis="steps") for value in values))
        for one, (_, values) in zip(own, criteria, strict=True)
    ]
    return ClaimResult(Claim(point=point, name=name, criterion=own), tuple(results))


CLAIMS = [
    claim(1, "a leak: it leaks", ({"at_least": 10.0}, [20.0, 400.0, 30.0])),
    claim(2, "a limit", ({"at_most": 10.0}, [5.0, 40.0]), ({"at_most": 2.0}, [8.0])),
    claim(3, "an absence", ({"at_least": 1.0}, [None])),
    claim(4, "growth", ({"powers": {"steps": 1.0}, "within": 0.1}, [1.0])),
]


def test_a_row_is_a_criterion_and_from_1_on_it_is_met():
    (panel,) = claim_figure(CLAIMS, "Here.").panels
    assert list(reversed(panel.y.names)) == [
        "1. a leak: criterion 0",
        "2. a limit: criterion 0",
        "2. a limit: criterion 1",
    ]
    rows = {panel.y.names[int(one.y[0])]: (one.name, one.x) for one in panel.series}
    assert rows["1. a leak: criterion 0"] == ("holds", (2.0, 40.0))
    assert rows["2. a limit: criterion 0"] == ("holds when", (0.25, 2.0))
    assert rows["2. a limit: criterion 1"] == ("fails", (0.25,))


def test_the_title_counts_claims_that_were_measured():
    (panel,) = claim_figure([*CLAIMS[:1], CLAIMS[2]], "Here.").panels
    assert str(panel.headline) == "1 of 1 claims that were measured hold"


@pytest.mark.parametrize("claims", [[], CLAIMS[2:]])
def test_nothing_is_drawn_without_a_limit_to_compare_with(claims):
    assert not claim_figure(claims, "Here.").blocks


def test_names_stand_beside_the_axis_within_the_figure():
    figure = draw(claim_figure(CLAIMS, "Here."))
    (axes,) = figure.axes
    assert all(label.get_window_extent().x0 >= 0 for label in axes.get_yticklabels())
