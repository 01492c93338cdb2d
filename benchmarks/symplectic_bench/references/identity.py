"""The identity of a problem: digests of the code and the numbers that its reference depends on."""

import ast
import hashlib
import inspect
import textwrap
from typing import Any

from symplectic_bench.problems import Problem

Identity = dict[str, str]
"""The digests "code" and "numbers", 16 hexadecimal digits each."""


def identity(problem: Problem) -> Identity:
    """Return digests of the code of the problem's formula and loss, and of all its numbers.

    The numbers are included because another machine may draw them differently in the last place. For a user's own
    problem, which has no formula, the code is the source that it is made of.
    """
    if problem.formula is None:
        layers = [(name, type(layer).__qualname__) for name, layer in problem.func.named_modules()]
        code = hashlib.sha256(repr((problem.source, layers)).encode())
    else:
        module, loss = inspect.getmodule(problem.formula), type(problem.loss)
        assert module is not None
        code = hashlib.sha256(repr((_syntax(module), _syntax(loss))).encode())
    numbers = hashlib.sha256(repr((sorted(problem.sizes.items()), problem.jumps)).encode())
    buffers = [x for m in (problem.func, problem.loss) for x in m.buffers()]
    for x in (problem.t, problem.y0, *problem.parameters, *buffers):
        numbers.update(repr(tuple(x.shape)).encode() + x.detach().numpy().tobytes())
    return {"code": code.hexdigest()[:16], "numbers": numbers.hexdigest()[:16]}


def _syntax(source: Any) -> Any:
    """Return the syntax tree of a module or class as nested tuples, without docstrings and imports.

    Rewording a docstring or moving a module must not make a reference stale. The output of `ast.dump` cannot be used,
    because it differs between versions of Python.
    """
    return _as_tuples(ast.parse(textwrap.dedent(inspect.getsource(source))))


def _as_tuples(node: Any) -> Any:
    if isinstance(node, list):
        return tuple(_as_tuples(one) for one in node if not _is_import_or_docstring(one))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _as_tuples(value)) for name, value in ast.iter_fields(node) if value not in (None, []))
    return (type(node).__name__, *fields)


def _is_import_or_docstring(node: Any) -> bool:
    is_docstring = (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return is_docstring or isinstance(node, ast.Import | ast.ImportFrom)
