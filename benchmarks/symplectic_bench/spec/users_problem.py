"""A user's own problem, named MODULE:FACTORY: the suite that measures it, and which suites name one."""

import json
import re
import tomllib
from collections.abc import Mapping

from symplectic_bench.spec.cell import Size, is_users_problem
from symplectic_bench.spec.suite import Scale, Suite, SuiteError, load_suite

SUITE_FILE = """\
title = {title}
description = {description}
max_cells = 100
budget_s = 600
cell_timeout_s = 120
repeats = 3

# A list multiplies the cells: batch = [1, 128], rtol = [1e-3, 1e-6, 1e-9], several problems, several methods.
[[block]]
problem = [{{ {problem} }}]
batch = 1
dtype = "float64"
method = "dopri5"
rtol = 1e-6
[block.contenders]
ours = ["symplectic", "stages", "aca", "backprop", "continuous"]
torchdiffeq = ["backprop", "continuous"]

[scale.smoke]
repeats = 1

[scale.gpu.defaults]
device = "cuda"
"""
"""The suite of a problem that is given alone: our main gradients and torchdiffeq's at one tolerance."""


def suite_of(source: str, scale: Scale, problem: str | None = None) -> Suite:
    """Return the suite at that name or path, or that of a problem given alone (source is the problem), at its scale.

    Raise SuiteError if it is invalid, or does not name the problem.
    """
    if problem is not None:
        factory_name(problem)
    if problem is not None and source == problem:
        return _suite_of_problem(problem).at_scale(scale)
    suite = load_suite(source).at_scale(scale)
    if problem is not None and problem not in users_problems(suite):
        raise SuiteError(f"--problem {problem}: {source} does not name it: leave out one of the two")
    return suite


def users_problems(suite: Suite) -> list[str]:
    """Return the users' own problems that a suite names."""
    names = (problem["name"] for block in suite.block for problem in block.problem)
    return list(dict.fromkeys(name for name in names if is_users_problem(name)))


def suite_text(path: str, sizes: Mapping[str, Size]) -> str:
    """Return the text of a suite file of the problem with these sizes."""
    name = factory_name(path)
    values = {"name": path, **sizes}
    return SUITE_FILE.format(
        title=_toml(f"Problem {name}"),
        description=_toml(f"The problem {path}, with dopri5 at 1e-6."),
        problem=", ".join(f"{key if key.isascii() else _toml(key)} = {_toml(value)}" for key, value in values.items()),
    )


def _suite_of_problem(path: str) -> Suite:
    name = re.sub(r"[^a-z0-9_-]", "-", factory_name(path).lower())
    return Suite.model_validate({"name": f"problem-{name}", **tomllib.loads(suite_text(path, {}))})


def _toml(value: Size) -> str:
    """Return a number or a string in TOML, whose strings are JSON's."""
    return json.dumps(value, ensure_ascii=False)


def factory_name(path: str) -> str:
    """Return the part of MODULE:FACTORY after the colon. Raise SuiteError for any other form."""
    module, _, name = path.partition(":")
    if not (name.isidentifier() and re.fullmatch(r"[\w-]+(\.[\w-]+)*", module)):
        file = re.fullmatch(r"(?:\./)?([\w/-]+)\.py:(\w+)", path)
        meant = f"{file[1].replace('/', '.')}:{file[2]}" if file else "mypackage.problems:pendulum"
        raise SuiteError(f"--problem {path}: give MODULE:FACTORY, such as {meant}")
    return name
