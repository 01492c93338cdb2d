"""References by the problem that they are of: those that came with this program, and those computed here."""

import ast
import hashlib
import importlib.util
import inspect
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.files.arrays import load_arrays, save_arrays
from symplectic_bench.problems import Problem, build
from symplectic_bench.references.closed_form import closed_form, has_closed_form
from symplectic_bench.references.converged import converged
from symplectic_bench.references.reference import Reference
from symplectic_bench.references.taylor import can_be_expanded, expanded
from symplectic_bench.spec.cell import Cell

KNOWN = Path(__file__).parent / "known"
"""The standard problems' own, so that nobody needs heyoka for them."""

AT_ONCE = 2_000
"""Equations of a Taylor reference that a suite waits for: ten seconds or so."""

WORST_BAR = 1e-6
"""A reference whose error bar is larger has not converged and is no reference."""


def reference_problem(cell: Cell, cache_dir: Path) -> Problem:
    """The cell's problem in float64 on the CPU: its numbers are those that the contenders are given, cast up."""
    return build(replace(cell, device="cpu"), cache_dir).to(torch.float64)


def compute_reference(cell: Cell, cache_dir: Path) -> None:
    """Write the reference of the cell's problem into the cache, converged or not, unless there is one."""
    problem = reference_problem(cell, cache_dir)
    if _file(cell, problem, cache_dir) is None:
        save(best(problem, AT_ONCE), identity(problem), cache_dir / file_name(cell))


def best(problem: Problem, most_equations: int) -> Reference:
    """By the most accurate way that there is. most_equations: see can_be_expanded."""
    if has_closed_form(problem):
        return closed_form(problem)
    if can_be_expanded(problem, most_equations):
        try:
            return expanded(problem)
        except ArithmeticError:  # where a Taylor series gives out, small steps may still get through
            return converged(problem)
    return converged(problem)


def load_reference(cell: Cell, cache_dir: Path) -> Reference | str:
    """The known or the cached reference, or the reason why there is none to compare with."""
    file = reference_file(cell, cache_dir)
    if file is None:
        return "no reference was computed"
    reference = load(file)
    if not reference.bar <= WORST_BAR:  # also when it is NaN
        return f"the reference has not converged ({reference.source}): its error bar is {reference.bar:.1e}"
    return reference


def reference_file(cell: Cell, cache_dir: Path) -> Path | None:
    """Where the cell's reference is, if it is anywhere."""
    return _file(cell, reference_problem(cell, cache_dir), cache_dir)


def _file(cell: Cell, problem: Problem, cache_dir: Path) -> Path | None:
    files = [folder / file_name(cell) for folder in (KNOWN, cache_dir)]
    return next((file for file in files if file.exists() and _told(file)["of"] == identity(problem)), None)


def file_name(cell: Cell) -> str:
    return f"{cell.problem}-{cell.problem_id}.npz"


Identity = dict[str, str]


def identity(problem: Problem) -> Identity:
    """All that a reference depends on: the problem's formula and loss, and every number of it.

    The numbers are drawn, and another machine may draw them otherwise in the last place.
    """
    if problem.formula is None:
        code = hashlib.sha256(repr(problem.func).encode() + b"".join(map(_source, problem.packages)))
    else:
        module, loss = inspect.getmodule(problem.formula), type(problem.loss)
        assert module is not None
        code = hashlib.sha256(repr((_statements(module), _statements(loss))).encode())
    numbers = hashlib.sha256(repr((sorted(problem.sizes.items()), problem.jumps)).encode())
    buffers = [x for m in (problem.func, problem.loss) for x in m.buffers()]
    for x in (problem.t, problem.y0, *problem.parameters, *buffers):
        numbers.update(repr(tuple(x.shape)).encode() + x.detach().numpy().tobytes())
    return {"code": code.hexdigest()[:16], "numbers": numbers.hexdigest()[:16]}


def _statements(source: Any) -> Any:
    """The syntax tree of a module or class as nested tuples, less its docstrings and imports.

    Rewording a docstring or moving a module must not make a reference stale. `ast.dump` would do but for its
    output, which differs between versions of Python.
    """
    return _plain(ast.parse(textwrap.dedent(inspect.getsource(source))))


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return tuple(_plain(one) for one in node if not _is_import_or_docstring(one))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
    return (type(node).__name__, *fields)


def _is_import_or_docstring(node: Any) -> bool:
    documents = (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return documents or isinstance(node, ast.Import | ast.ImportFrom)


def _source(package: str) -> bytes:
    """All of a user's package, or module: a field may be made of any of it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return package.encode()
    file = Path(spec.origin)
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    return b"".join(one.read_bytes() for one in files)


def save(reference: Reference, of: Identity, file: Path) -> None:
    arrays: dict[str, Any] = {f"near_{i}": x.numpy() for i, x in enumerate(reference.gradient)}
    arrays |= {f"rest_{i}": x.numpy() for i, x in enumerate(reference.rest)}
    own = {"final_state": reference.final_state.numpy(), "by_times": reference.by_times.numpy()}
    told = {"of": of, "source": reference.source, "loss": reference.loss, "bar": reference.bar}
    save_arrays(file, told=np.array(json.dumps(told)), **own, **arrays)


def _told(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        return json.loads(str(arrays["told"]))


def code_of(file: Path) -> str:
    """The digest of the formula and the loss that a stored reference is of."""
    return _told(file)["of"]["code"]


def load(file: Path) -> Reference:
    told, arrays = _told(file), load_arrays(file)
    plain = {name: told[name] for name in ("source", "loss", "bar")}
    number = sum(name.startswith("near_") for name in arrays)

    def tensors(name: str) -> list[Tensor]:
        return [torch.from_numpy(arrays[f"{name}_{i}"]) for i in range(number)]

    own = {name: torch.from_numpy(arrays[name]) for name in ("final_state", "by_times")}
    return Reference(gradient=tensors("near"), rest=tensors("rest"), **own, **plain)
