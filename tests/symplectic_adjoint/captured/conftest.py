import pytest

from symplectic_adjoint.field import captured
from symplectic_adjoint.field.cuda_graphs import NoGraphs
from symplectic_adjoint.field.program_table import ProgramTable
from tests.recorded_graphs import RecordedGraphs


@pytest.fixture(params=["called", "recorded"])
def graphs(request, monkeypatch):
    """Programs that are called, and programs that are replayed without Python, in a table of the test's own."""
    make = RecordedGraphs if request.param == "recorded" else lambda device: NoGraphs()
    monkeypatch.setattr(captured, "graphs_for", make)
    monkeypatch.setattr(captured, "_PROGRAMS", ProgramTable())
    return request.param


@pytest.fixture
def recorded(monkeypatch):
    """Programs that are replayed without Python, as CUDA graphs are, in a table of the test's own; return the table."""
    monkeypatch.setattr(captured, "graphs_for", RecordedGraphs)
    table = ProgramTable()
    monkeypatch.setattr(captured, "_PROGRAMS", table)
    return table
