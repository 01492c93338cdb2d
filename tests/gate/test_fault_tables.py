"""The tables of faults, checked for every change: planting them all takes a night."""

import re

import pytest

from tests.clone import ROOT
from tests.gate.faults import FAULTS_OF_LIBRARY
from tests.gate.suite_faults import FAULTS_OF_SUITE

FAULTS = (*FAULTS_OF_LIBRARY, *FAULTS_OF_SUITE)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_names_what_must_see_it(fault):
    for plant in fault.plants:
        changed = plant.applied_to(ROOT)  # raises if the text has changed
        compile(changed, plant.file, "exec")
    assert fault.tests or fault.metric
    for test in fault.tests:
        file, *names = test.split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in names:
            bare = re.escape(name.partition("[")[0])
            assert re.search(rf"(def|class) {bare}[(:]", text), test


def test_names_are_unique_and_some_faults_are_planted_for_every_change():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    in_ci = [fault for fault in FAULTS if fault.in_ci]
    assert len(in_ci) >= 3 and any(fault.metric for fault in in_ci) and any(fault.tests for fault in in_ci)
