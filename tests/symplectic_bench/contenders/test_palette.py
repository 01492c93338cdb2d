"""Colours of series can be told apart, with deuteranopia too."""

import math
from itertools import combinations

import numpy as np
import pytest

from symplectic_bench.contenders.contender_records import CONTENDER_RECORDS
from symplectic_bench.contenders.gradient_records import GRADIENT_RECORDS
from symplectic_bench.report.method_figures import COLORS

RECORDS = [record for record in (*GRADIENT_RECORDS.values(), *CONTENDER_RECORDS.values()) if record.color]
USED = {"light": {record.color for record in RECORDS}, "dark": {record.on_dark for record in RECORDS}}

LEAST = 0.065
"""A distance in Oklab, in which white is 1 from black. Side by side, 0.02 is just seen."""

# Machado, Oliveira and Fernandes 2009, deuteranomaly of severity 1, on linear RGB.
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
NORMAL = np.eye(3)
# Ottosson 2020, Oklab.
TO_CONES = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
TO_LAB = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]


def linear(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def oklab(color, vision):
    seen = np.clip(np.array(vision) @ linear(color), 0, 1)
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_CONES) @ seen)


def distance(one, other, vision):
    return math.dist(oklab(one, vision), oklab(other, vision))


def test_the_distance_sees_what_deuteranopia_hides():
    assert distance("#B22222", "#8B5A2B", NORMAL) > LEAST > distance("#B22222", "#8B5A2B", DEUTERANOPIA)


@pytest.mark.parametrize("vision", [NORMAL, DEUTERANOPIA], ids=["normal", "deuteranopia"])
@pytest.mark.parametrize("background", ["light", "dark"])
def test_any_two_series_are_apart(vision, background):
    pairs = combinations(sorted(USED[background]), 2)
    assert {pair: found for pair in pairs if (found := distance(*pair, vision)) < LEAST} == {}


def test_every_colour_has_one_counterpart_on_dark():
    assert len(USED["light"]) == len(USED["dark"]) == len({(record.color, record.on_dark) for record in RECORDS})
    assert set(COLORS) <= {(record.color, record.on_dark) for record in RECORDS}
