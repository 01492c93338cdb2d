"""The function that makes a user's own problem: how it is imported and called, and what its errors say."""

import contextlib
import functools
import importlib
import inspect
import io
import math
import os
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.problems.users_source import is_installed
from symplectic_bench.spec.cell import ITERATIONS, Cell, Size
from symplectic_bench.spec.failure import diagnose
from symplectic_bench.spec.status import Status
from symplectic_bench.spec.suggestion import suggestion

FactoryResult = tuple[nn.Module, Tensor, Tensor, Callable[[Tensor], Tensor]]
"""func, y0, t and the loss of ys, as for odeint."""

FORM = """\
The expected form:
    def {name}(batch, *, width=64):  # sizes, which suites may set: numbers and strings with defaults
        func = ...                   # a torch.nn.Module: func(t, y) returns dy/dt, shaped like y
        y0 = ...                     # floating point, of shape (batch, dim)
        t = ...                      # two or more increasing times
        return func, y0, t, loss     # loss(ys), of ys of shape (len(t), batch, dim), is a scalar"""

RESERVED = {*(field.name for field in fields(Cell)), "name", "stages", ITERATIONS}
"""Names of other things in a suite file. An argument of such a name stays at its default."""

SUITE = Path(__file__).parents[1]


class InvalidProblem(ValueError):
    """Raised for a user's problem that cannot be imported or made. The first line says where and why."""

    @classmethod
    def at(cls, path: str, place: str | None, complaint: str) -> "InvalidProblem":
        where = "" if place is None else f"{place}: "
        return cls(f"problem {path}: {where}{complaint}\n{FORM.format(name=path.partition(':')[2])}")


@dataclass(frozen=True)
class Factory:
    """The function of a user's problem, and the sizes that suites may set, with their defaults."""

    path: str
    function: Callable[..., Any]
    sizes: Mapping[str, Size]

    def make(self, batch: int, seed: int, sizes: Mapping[str, Size]) -> FactoryResult:
        """Call the function with seeded generators. Raise InvalidProblem if it raises or returns something else."""
        given = ", ".join(f"{name}={value!r}" for name, value in {"batch": batch, **sizes}.items())
        first = next(iter(inspect.signature(self.function).parameters.values()))
        place, named = ((), {"batch": batch}) if first.kind is first.KEYWORD_ONLY else ((batch,), {})
        with seeded(seed), users_code(self.path, f"{self.path.partition(':')[2]}({given})"):
            found = self.function(*place, **named, **sizes)
        self._check(found, batch)
        return found

    def refuse(self, complaint: str) -> InvalidProblem:
        """Return the error for a function that does not have the expected form."""
        return InvalidProblem.at(self.path, _place_of(self.function), complaint)

    def _check(self, found: Any, batch: int) -> None:
        if not isinstance(found, tuple | list) or len(found) != 4:
            raise self.refuse(f"it must return four things, func, y0, t and loss; got {shown(found)}")
        func, y0, t, loss = found
        if not isinstance(func, nn.Module):
            raise self.refuse(f"func, the first, must be a torch.nn.Module; got {shown(func)}")
        if not isinstance(y0, Tensor) or not y0.is_floating_point() or y0.dim() != 2 or len(y0) != batch:
            wanted = f"must be a floating-point tensor of shape ({batch}, dim), the batch first"
            raise self.refuse(f"y0, the second, {wanted}; got {shown(y0)}")
        if (
            not isinstance(t, Tensor)
            or t.dim() != 1
            or len(t) < 2
            or not bool((t.diff() > 0).all() & t.isfinite().all())
        ):
            raise self.refuse(f"t, the third, must be a 1-D tensor of two or more increasing times; got {shown(t)}")
        if not callable(loss):
            raise self.refuse(f"loss, the fourth, must be a function of ys; got {shown(loss)}")


@functools.cache
def load_factory(path: str) -> Factory:
    """Import MODULE:FACTORY, from the current folder too. Raise InvalidProblem if that fails."""
    module, _, name = path.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())  # as `python -m` does; a console script leaves it out
    with seeded(0), users_code(path, f"importing {module}"):
        found = _import(path, module)
    function = getattr(found, name, None)
    file = _shown_file(getattr(found, "__file__", None) or module)
    if function is None:
        defined = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        raise InvalidProblem.at(path, None, f"{file} has no {name!r}{suggestion(name, defined)}")
    if not callable(function):
        raise InvalidProblem.at(path, None, f"{name!r} in {file} must be a function; it is {shown(function)}")
    factory = Factory(path, function, {})
    return Factory(path, function, _sizes(factory))


def _import(path: str, module: str) -> ModuleType:
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as why:
        if why.name is not None and f"{module}.".startswith(f"{why.name}.") and _place_in(why) is None:
            places = "in the current folder, on PYTHONPATH or among the installed packages"
            raise InvalidProblem.at(path, None, f"there is no module {why.name!r} {places}") from why
        raise
    finally:
        sys.dont_write_bytecode = writes


def _sizes(factory: Factory) -> dict[str, Size]:
    try:
        parameters = inspect.signature(factory.function).parameters
    except ValueError as why:
        raise factory.refuse(f"its arguments are unknown: {why}") from why
    first = next(iter(parameters.values()), None)
    if first is None or not (first.name == "batch" or (_is_plain(first) and first.default is first.empty)):
        raise factory.refuse(f"its first argument must be batch; it has ({', '.join(map(str, parameters.values()))})")
    sizes: dict[str, Size] = {}
    for name, parameter in list(parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise factory.refuse(f"its argument {name!r} has no default, and a suite may leave it out: give it one")
        if parameter.kind is not parameter.POSITIONAL_ONLY and name not in RESERVED and _is_size(parameter.default):
            sizes[name] = parameter.default
    return sizes


def _is_plain(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def _is_size(value: Any) -> bool:
    return type(value) is str or (type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**63)


@contextlib.contextmanager
def users_code(path: str, doing: str) -> Iterator[None]:
    """Run a user's code without what it prints. Raise InvalidProblem, with file and line, for whatever it raises.

    A lack of memory is no mistake of the problem's and is raised as it is.
    """
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (KeyboardInterrupt, InvalidProblem):
        raise
    except BaseException as why:
        if diagnose(why)[0] is Status.OOM:
            raise
        said = str(why).strip().partition("\n")[0]
        kind = "it called sys.exit" if isinstance(why, SystemExit) else type(why).__name__
        raise InvalidProblem.at(path, _place_in(why), f"{doing} failed: {kind}{f': {said}' if said else ''}") from why
    finally:
        torch.set_num_threads(threads)  # the number of a cell


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's, numpy's and Python's generators, and put them back at the end."""
    ours, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)


def _place_in(error: BaseException) -> str | None:
    """Return the file and line of the user's code that an error comes from, or None."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_shown_file(error.filename)}, line {error.lineno}"
    standard = Path(sysconfig.get_path("stdlib"))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and not any(Path(frame.filename).is_relative_to(folder) for folder in (SUITE, Path(torch.__file__).parent))
        and (is_installed(Path(frame.filename)) or not Path(frame.filename).is_relative_to(standard))
    ]
    frame = next(
        (frame for frame in reversed(frames) if not is_installed(Path(frame.filename))), frames[0] if frames else None
    )
    return None if frame is None else f"{_shown_file(frame.filename)}, line {frame.lineno}"


def _place_of(function: Callable[..., Any]) -> str | None:
    """Return the file and line where a function is defined, or None if it is not written in Python."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        plain = inspect.unwrap(function)
        return f"{_shown_file(inspect.getsourcefile(plain) or '')}, line {inspect.getsourcelines(plain)[1]}"
    except (TypeError, OSError):
        return None


def _shown_file(file: str) -> str:
    """Return the file's path, relative to the current folder if it is in there."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def shown(value: object) -> str:
    """Return what a value is, for the end of a message."""
    if isinstance(value, Tensor):
        few = f": [{', '.join(f'{x:.3g}' for x in value.tolist())}]" if value.dim() == 1 and len(value) <= 5 else ""
        return f"a tensor of shape {tuple(value.shape)} and dtype {str(value.dtype).removeprefix('torch.')}{few}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"
