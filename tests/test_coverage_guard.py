"""The guard that fails a run in which a registry entry was not tested."""

import pytest

CASES = """
import pytest

@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_something(method):
    if method in {skipped!r}:
        pytest.skip("declined")
"""


@pytest.mark.parametrize(("skipped", "passes"), [((), True), (("rk4",), False)])
def test_the_run_fails_if_every_case_of_a_method_was_skipped(pytester, skipped, passes):
    pytester.makepyfile(CASES.format(skipped=skipped))
    result = pytester.runpytest_inprocess("-p", "tests.coverage_guard", "-p", "no:xdist", "-p", "no:cacheprovider")
    assert (result.ret == 0) is passes
    if not passes:
        result.stdout.fnmatch_lines(["*every case was skipped: method=rk4"])
