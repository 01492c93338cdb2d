"""Find, compute and store a problem's reference, in the package or in this machine's cache."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.files.arrays import load_arrays, save_arrays
from symplectic_bench.problems import Problem, build
from symplectic_bench.references.closed_form import closed_form_reference, has_closed_form
from symplectic_bench.references.converged import converged_reference
from symplectic_bench.references.identity import Identity, identity
from symplectic_bench.references.radau import is_stiff, radau_reference
from symplectic_bench.references.reference import Reference
from symplectic_bench.references.taylor import can_expand, taylor_reference
from symplectic_bench.spec.cell import Cell

KNOWN = Path(__file__).parent / "known"
"""The folder of the standard problems' references, part of the package so that users do not need heyoka for them."""

MAX_EQUATIONS = 2_000
"""The largest number of equations in a Taylor reference computed during a run: about ten seconds."""

MAX_BAR = 1e-6
"""A reference with a larger error bar has not converged and is not used."""

MOST_WORK = 1e10
"""The largest product of batch and parameters for which a reference is computed: ten seconds on a large GPU."""

METADATA = "told"
"""The name, in the files, of the array that holds the metadata as JSON."""


def reference_problem(cell: Cell, cache_dir: Path) -> Problem:
    """Return the cell's problem in float64 on the CPU: the contenders' numbers, in the cell's dtype, cast up."""
    return build(replace(cell, device="cpu"), cache_dir).to(torch.float64)


def compute_reference(cell: Cell, cache_dir: Path) -> str | None:
    """Write the reference of the cell's problem, converged or not, into the cache, unless one exists.

    Return None, or why there will be none.
    """
    problem = reference_problem(cell, cache_dir)
    if reference_file(cell, cache_dir) is not None:
        return None
    work = len(problem.y0) * sum(p.numel() for p in problem.parameters)
    if work > MOST_WORK:
        return f"no reference was computed: batch x parameters is {work:.1e}, more than {MOST_WORK:.0e}"
    save(best_reference(problem, MAX_EQUATIONS, cell.device), identity(problem), cache_dir / file_name(cell))
    return None


def best_reference(problem: Problem, max_equations: int, device: str = "cpu") -> Reference:
    """Compute a reference by the most accurate method available, one by self-convergence on this device.

    problem is on the CPU. max_equations: see can_expand.
    """
    if has_closed_form(problem):
        return closed_form_reference(problem)
    if is_stiff(problem):
        return radau_reference(problem)
    if can_expand(problem, max_equations):
        try:
            return taylor_reference(problem)
        except ArithmeticError:  # small steps may succeed even if a Taylor series fails
            return converged_reference(problem, device)
    return converged_reference(problem, device)


def load_reference(cell: Cell, cache_dir: Path) -> Reference | str:
    """Return the stored or cached reference, or the reason why there is none to compare with."""
    file = reference_file(cell, cache_dir)
    if file is None:
        return "no reference was computed"
    reference = load(file)
    if not reference.bar <= MAX_BAR:  # also if it is NaN
        return f"the reference has not converged ({reference.source}): its error bar is {reference.bar:.1e}"
    return reference


def reference_file(cell: Cell, cache_dir: Path) -> Path | None:
    """Return the file that holds the cell's reference, or None if there is none."""
    files = [file for file in (folder / file_name(cell) for folder in (KNOWN, cache_dir)) if file.exists()]
    if not files:
        return None
    found = identity(reference_problem(cell, cache_dir))
    return next((file for file in files if _metadata(file)["of"] == found), None)


def file_name(cell: Cell) -> str:
    """Return the name of the file for the reference of the cell's problem."""
    name = re.sub(r"[^\w.-]+", "-", cell.problem, flags=re.ASCII)[:80]  # the id tells apart what this makes equal
    return f"{name}-{cell.problem_id}.npz"


def save(reference: Reference, of: Identity, file: Path) -> None:
    """Write the reference of the problem that has the identity `of`."""
    arrays: dict[str, Any] = {f"near_{i}": x.numpy() for i, x in enumerate(reference.gradient)}
    arrays |= {f"rest_{i}": x.numpy() for i, x in enumerate(reference.rest)}
    own = {"final_state": reference.final_state.numpy(), "by_times": reference.by_times.numpy()}
    metadata = {"of": of, "source": reference.source, "loss": reference.loss, "bar": reference.bar}
    save_arrays(file, **{METADATA: np.array(json.dumps(metadata))}, **own, **arrays)


def load(file: Path) -> Reference:
    """Return the reference in a file that `save` wrote."""
    metadata, arrays = _metadata(file), load_arrays(file)
    plain = {name: metadata[name] for name in ("source", "loss", "bar")}
    number = sum(name.startswith("near_") for name in arrays)

    def tensors(name: str) -> list[Tensor]:
        return [torch.from_numpy(arrays[f"{name}_{i}"]) for i in range(number)]

    own = {name: torch.from_numpy(arrays[name]) for name in ("final_state", "by_times")}
    return Reference(gradient=tensors("near"), rest=tensors("rest"), **own, **plain)


def _metadata(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        return json.loads(str(arrays[METADATA]))
