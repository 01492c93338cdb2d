"""Waits and launches, counted from what torch reports."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from symplectic_bench.measure import launches as counting
from symplectic_bench.measure.launches import launches, waits


@pytest.fixture(autouse=True)
def modes(monkeypatch):
    """Return the modes in which torch was asked to report waits."""
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", asked.append)
    return asked


def test_every_wait_is_counted_even_at_one_place_and_other_warnings_are_not(modes):
    def run():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert waits(run) == {"waits": 3} and modes == ["warn", "default"]


def test_the_mode_is_reset_after_an_error(modes):
    with pytest.raises(ZeroDivisionError):
        waits(lambda: 1 / 0)
    assert modes == ["warn", "default"]


def test_launches_of_kernels_graphs_and_copies_are_told_apart(monkeypatch):
    events = {
        "cudaLaunchKernel": 5,
        "cuLaunchKernelEx": 2,
        "cudaGraphLaunch": 3,
        "cudaMemcpyAsync": 1,
        "aten::add": 9,
        "Memcpy HtoD (Pageable -> Device)": 1,  # on the card: its launch is counted already
    }

    class Profiler:
        def __init__(self, activities):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def key_averages(self):
            return [SimpleNamespace(key=key, count=count) for key, count in events.items()]

    monkeypatch.setattr(counting, "profile", Profiler)
    assert launches(lambda: None) == {"launches": 7, "graph_launches": 3, "copies": 1}
