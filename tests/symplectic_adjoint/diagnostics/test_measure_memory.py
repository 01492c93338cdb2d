"""measure_memory: the memory that a model takes, in exact bytes."""

import math
import os
import subprocess
import sys

import pytest
import torch

import symplectic_adjoint as sa
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
FIXED = {"method": "rk4", "options": {"step_size": 0.1}}


def test_kept_bytes_grow_with_the_states_that_are_kept():
    """Between the passes, baseline keeps nothing and stages keeps one state per stage."""
    func, y0 = SmallNet(), start()
    state = y0.numel() * 8
    kept = {
        name: sa.measure_memory(func, y0, T, gradient=name, **FIXED).kept_tensor_bytes
        for name in ("stages", "baseline")
    }
    assert kept["stages"] - kept["baseline"] >= 40 * state
    one = sa.measure_memory(func, y0, T, **FIXED)
    again = sa.measure_memory(func, y0, T, **FIXED)
    assert one == again and one.peak_tensor_bytes >= one.forward_peak_tensor_bytes >= one.kept_tensor_bytes > 10 * state


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="rtol"):
        sa.measure_memory(SmallNet(), start(), T, rtol=math.nan)


def test_watching_memory_prints_nothing():
    code = "import torch, symplectic_adjoint as sa; sa.watch_memory('cpu', lambda: torch.zeros(10))"
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
    assert done.stdout == done.stderr == b""
