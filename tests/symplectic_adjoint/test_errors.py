"""A warning is given once a process, at the line that called the library."""

import warnings

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.errors import forget_warnings, warn_once

T = torch.tensor([0.0, 1.0], dtype=torch.float64)


def solve():
    return sa.odeint(lambda t, y: -y, torch.ones(2), T, method="rk4", options={"max_iters": 3})


@pytest.mark.parametrize("category", [sa.IgnoredArgumentWarning, sa.ResolutionWarning, sa.StepControlOffWarning])
def test_a_warning_is_given_once_for_each_subject_until_it_is_forgotten(category):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for subject in ("a", "b", "a", "b"):
            warn_once(category, subject, f"about {subject}")
        forget_warnings()
        warn_once(category, "a", "about a")
    assert [str(x.message) for x in given] == ["about a", "about b", "about a"]
    assert all(issubclass(x.category, UserWarning) for x in given)


def test_a_warning_points_to_the_line_that_called_the_library():
    with pytest.warns(sa.IgnoredArgumentWarning) as given:
        solve()
    assert given[0].filename == __file__ and given[0].lineno == solve.__code__.co_firstlineno + 1


def test_a_warning_that_was_made_an_error_is_raised_again_at_the_next_call():
    for _ in range(2):
        with pytest.raises(sa.IgnoredArgumentWarning, match="max_iters"):
            solve()
