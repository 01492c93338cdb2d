"""Installed packages with torchdiffeq replaced by this library: only the tox environment "clients" collects these."""

import pytest

import symplectic_adjoint as sa
from tests.oracle import relative_error

ROUNDING = 1e-12  # as in test_exactness


def pytest_addoption(parser):
    parser.addoption("--torchdiffeq-tests", help="the folder tests of a clone of torchdiffeq, at the installed version")


@pytest.fixture
def compare():
    """Return a check of what client() returns with torchdiffeq replaced against truth() with torchdiffeq itself."""

    def check(client, truth, bound=ROUNDING):
        expected = truth()
        with sa.replace_torchdiffeq(rebind=True):
            got = client()
        assert list(got) == list(expected)
        assert any(x is not None and x.any() for x in expected.values())
        errors = {name: relative_error(got[name], expected[name]) for name in got}
        assert max(errors.values()) < bound, errors

    return check
