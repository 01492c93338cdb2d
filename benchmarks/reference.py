"""The gradient that was wanted: a converged solution of the continuous problem, with its own error bar.

dopri8 in float64 at two tolerances. The tighter one is the reference, and its distance from the looser one the error
bar: it bounds the looser one's error, so it is generous to the reference. A float32 problem is cast up first, so its
reference belongs to the float32 numbers that the contenders were given.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cell import Cell
from benchmarks.contenders.ours import OURS
from benchmarks.oracle import relative_error
from benchmarks.problems import build

TOLERANCE = 1e-13
LOOSER = 1e-11
WORST_BAR = 1e-6
"""A reference whose error bar is larger has not converged and is no reference."""


@dataclass(frozen=True)
class Reference:
    """y(t[-1]), the loss and its gradient (by y0, then by each parameter) in float64; bar is relative."""

    final_state: Tensor
    loss: float
    gradient: list[Tensor]
    bar: float


def compute_reference(cell: Cell, cache_dir: Path) -> dict[str, float]:
    """Write the reference of the cell's problem into the cache, converged or not, and return its error bar."""
    problem = build(replace(cell, device="cpu"), cache_dir).to(torch.float64)
    found = []
    for tolerance in (LOOSER, TOLERANCE):
        problem.clear_gradients()
        found.append(OURS.observe(problem, _converged(cell, tolerance)))
    looser, tighter = found
    bar = relative_error(looser.gradient, tighter.gradient)
    content = {
        "final_state": tighter.final_state,
        "loss": tighter.loss,
        "gradient": tighter.gradient,
        "bar": bar,
    }
    _save(content, reference_file(cell, cache_dir))
    return {"bar": bar}


def load_reference(cell: Cell, cache_dir: Path) -> Reference | str:
    """The cached reference, or the reason why there is none to compare with."""
    file = reference_file(cell, cache_dir)
    if not file.exists():
        return "no reference was computed"
    reference = Reference(**torch.load(file, weights_only=True))
    if not reference.bar <= WORST_BAR:  # also when it is NaN
        return f"the reference has not converged: {TOLERANCE:g} and {LOOSER:g} differ by {reference.bar:.1e}"
    return reference


def reference_file(cell: Cell, cache_dir: Path) -> Path:
    """Named after the problem and the code that makes it, so a changed problem never meets an old reference."""
    return cache_dir / f"reference-{cell.problem_id}-{_source_digest()}.pt"


def _converged(cell: Cell, tolerance: float) -> Cell:
    accuracy = {"rtol": tolerance, "atol": tolerance, "steps": None}
    return replace(cell, method="dopri8", gradient="symplectic", contender="ours", dtype="float64", **accuracy)


def _source_digest() -> str:
    here = Path(__file__).parent
    sources = [here / "data.py", Path(__file__), *sorted((here / "problems").glob("*.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


def _save(content: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that another process never reads half a file.
    part = file.with_suffix(f".{os.getpid()}")
    torch.save(content, part)
    os.replace(part, file)
