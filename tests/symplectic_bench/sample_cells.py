"""Cells that take milliseconds."""

from typing import Any

from symplectic_bench.spec.cell import Cell

FIXED: dict[str, Any] = {"rtol": None, "atol": None}


def make_cell(**changes: Any) -> Cell:
    """Return a small mlp by our symplectic gradient with dopri5 at 1e-6; `sizes` may be a dict."""
    values: dict[str, Any] = {
        "suite": "test",
        "problem": "mlp",
        "sizes": {},
        "batch": 3,
        "method": "dopri5",
        "rtol": 1e-6,
        "atol": 1e-6,
        "steps": None,
        "gradient": "symplectic",
        "contender": "ours",
        "dtype": "float64",
        "device": "cpu",
        "threads": 1,
        "seed": 0,
        **changes,
    }
    values["sizes"] = tuple(sorted(values["sizes"].items()))
    return Cell(**values)
