import pytest

from symplectic_adjoint.field import module_lock


@pytest.fixture(params=["parameters stay", "aliases replace them"])
def either_sums(request, monkeypatch):
    """Sweeps as they are where several threads solve, and as they are before a second thread solves."""
    if request.param == "aliases replace them":
        monkeypatch.setattr(module_lock._Table, "other_threads_solve", lambda *_: False)


@pytest.fixture
def first_solves():
    """Let this process have no thread that has solved, so that a thread's sweep may replace parameters."""
    module_lock._TABLE.threads.clear()
    yield
    module_lock._TABLE.threads.clear()
