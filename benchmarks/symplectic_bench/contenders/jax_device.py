"""The device on which JAX computes: that of the cell, whichever one JAX would choose itself."""

import functools
import importlib
import os
import subprocess
import sys
from typing import Any

from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import publishable

PLATFORMS = {"cpu": "cpu", "cuda": "cuda,cpu"}
"""The platforms that JAX starts for a device. Callbacks of compiled code need the CPU's."""

SHARES_MEMORY = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""So that JAX does not reserve most of the card's memory, which torch's contenders need too."""

PATIENCE_S = 120.0


def start_jax(cell: Cell) -> Any:
    """Import JAX and set it up for the cell. It reads these settings once, when it first computes.

    Products of float32 matrices are computed in float32, as torch computes them: by default JAX rounds their factors to
    TF32 on a card that has it.
    """
    os.environ |= {"NPROC": str(cell.threads), **SHARES_MEMORY}
    jax = importlib.import_module("jax")
    jax.config.update("jax_platforms", PLATFORMS[cell.device])
    jax.config.update("jax_enable_x64", cell.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    return jax


def device_of(cell: Cell, jax: Any) -> Any:
    """Return JAX's device for the cell. Raise RuntimeError if it has none."""
    return jax.devices(cell.device)[0]


@functools.cache
def without_cuda() -> str | None:
    """Return why JAX cannot compute on a CUDA device here, or None. A process of its own tries, once."""
    program = "import jax; jax.devices('cuda')"
    environment = {**os.environ, **SHARES_MEMORY, "JAX_PLATFORMS": PLATFORMS["cuda"]}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return f"JAX did not find a CUDA device within {PATIENCE_S:g} s"
    if tried.returncode == 0:
        return None
    why = publishable((tried.stderr.strip().splitlines() or ["no message"])[-1])
    return f'JAX finds no CUDA device here, install its CUDA build (python -m pip install "jax[cuda13]"): {why}'
