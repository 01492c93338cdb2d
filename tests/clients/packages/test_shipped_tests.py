"""The tests that packages ship in their source distributions, unchanged, with torchdiffeq replaced by this library."""

import shutil

import pytest

from tests.clients.packages.run_pytest import failures, outcome, run
from tests.clients.packages.source_distribution import unpack

# The least number of tests: a distribution without its tests would pass otherwise.
SHIPPED = {"flow_matching": 40, "torchcfm": 100}


@pytest.mark.parametrize("package", SHIPPED)
def test_the_shipped_tests_pass(package, tmp_path):
    source = unpack(package, tmp_path)
    shutil.move(source / "tests", tmp_path / "run" / "tests")  # away from the package, so that the installed one counts
    output = run(tmp_path / "run", "tests")
    assert failures(output) == [], output[-5000:]
    assert outcome(output).get("passed", 0) >= SHIPPED[package], output[-5000:]
