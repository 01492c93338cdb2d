"""The suite that checks a user's own problem (--problem) without a suite file."""

import re

from symplectic_bench.spec.suite import Suite, SuiteError


def suite_of_problem(path: str) -> Suite:
    """Return a suite of our main gradients and torchdiffeq's at one tolerance. Raise SuiteError for a bad path."""
    name = factory_name(path)
    block = {
        "problem": [{"name": path}],
        "method": "dopri5",
        "rtol": 1e-6,
        "contenders": {
            "ours": ["symplectic", "stages", "aca", "backprop", "continuous"],
            "torchdiffeq": ["backprop", "continuous"],
        },
    }
    return Suite.model_validate(
        {
            "name": f"problem-{re.sub(r'[^a-z0-9_-]', '-', name.lower())}",
            "title": f"Problem {name}",
            "description": f"The problem {path}, with dopri5 at 1e-6.",
            "max_cells": 20,
            "budget_s": 600,
            "cell_timeout_s": 120,
            "repeats": 3,
            "block": [block],
        }
    )


def factory_name(path: str) -> str:
    """Return the part of MODULE:FACTORY after the colon. Raise SuiteError for any other form."""
    module, colon, name = path.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise SuiteError(f"--problem {path}: give MODULE:FACTORY, such as mypackage.problems:pendulum")
    return name
