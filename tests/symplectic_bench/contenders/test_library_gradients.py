"""The names that suites give to the library's gradients."""

import pytest

from symplectic_adjoint import GRADIENTS, Revolve, Symplectic
from symplectic_bench.analysis.summary import display_place
from symplectic_bench.contenders.library_gradients import NAMES, library_gradient
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.problems import build as build_cell
from symplectic_bench.spec.cell import setting
from tests.symplectic_bench.sample_cells import make_cell


def test_a_preset_is_its_name_and_a_dial_is_an_object():
    assert all(library_gradient(name) == name for name in GRADIENTS)
    assert library_gradient("revolve-8") == Revolve(8)
    assert library_gradient("graphs-20") == Symplectic(graphs=20)
    assert library_gradient("disk") == Symplectic(offload="disk")
    for unknown in ("revolve-0", "revolve-N", "stages-3", "graphs", "x", ""):
        assert library_gradient(unknown) is None
    assert set(GRADIENTS) < set(NAMES)


def test_settings():
    assert setting("revolve-12") == ("revolve", 12)
    assert setting("symplectic") == ("symplectic", 0)
    assert setting("continuous-seminorm") == ("continuous-seminorm", 0)
    names = ["ours revolve-16", "ours revolve-4", "ours symplectic", "ours graphs-3"]
    assert sorted(names, key=display_place) == ["ours symplectic", "ours revolve-4", "ours revolve-16", "ours graphs-3"]


@pytest.mark.parametrize("gradient", ["revolve-2", "graphs-5", "disk"])
def test_a_setting_is_measured_as_a_gradient(gradient, tmp_path):
    cell = make_cell(gradient=gradient)
    assert CONTENDERS["ours"].decline(cell) is None
    found = CONTENDERS["ours"].observe(build_cell(cell, tmp_path), cell)
    plain = make_cell(gradient="symplectic")
    expected = CONTENDERS["ours"].observe(build_cell(plain, tmp_path), plain)
    assert found.loss == expected.loss and found.counts.f_calls_backward != 0
    refused = CONTENDERS["ours"].decline(make_cell(gradient="revolve-0"))
    assert refused is not None and "revolve-N" in refused
