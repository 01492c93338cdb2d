"""How often the host waits for the device: reads of a tensor's value, counted."""

from dataclasses import replace

import pytest
import torch

from symplectic_adjoint import GRADIENTS, solve
from symplectic_adjoint.backward.recomputed_values import RecomputedValues
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start
from tests.gradients import STANDARD

READS = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy", "nonzero")


@pytest.fixture
def reads(monkeypatch):
    """Collect the names of reads as they are made."""
    made = []

    def counted(name, original):
        def read(self, *args, **kwargs):
            made.append(name)
            return original(self, *args, **kwargs)

        return read

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    return made


def reads_of(reads, options, method="dopri5", gradient="symplectic", backward=False):
    reads.clear()
    t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    solution = solve(SmallNet(), start(), t, method=method, rtol=1e-5, atol=1e-5, options=options, gradient=gradient)
    if backward:
        reads.clear()
        solution.ys.sum().backward()
    return len(reads), solution.stats


@pytest.mark.parametrize("method", [name for name, tableau in EXPLICIT_METHODS.items() if tableau.adaptive])
def test_an_adaptive_solve_reads_once_per_attempted_step(reads, method):
    few, short = reads_of(reads, {"first_step": 0.1}, method)
    many, long = reads_of(reads, {"first_step": 0.1, "max_step": 0.005}, method)  # 400 steps and more
    extra = (long.accepted + long.rejected) - (short.accepted + short.rejected)
    assert extra > 20
    assert many - few == extra


@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_reads_of_a_solve_on_a_fixed_grid_do_not_grow_with_its_steps(reads, method):
    assert reads_of(reads, {"step_size": 0.5}, method)[0] == reads_of(reads, {"step_size": 0.02}, method)[0]


@pytest.mark.parametrize("gradient", STANDARD)
def test_the_backward_pass_over_a_fixed_grid_reads_once(reads, gradient, monkeypatch):
    """That read ends the comparison of recomputed values, of which backprop has none.

    On the CPU, where nothing waits, equal values are found without it.
    """
    monkeypatch.setattr(RecomputedValues, "_surely_equal", lambda self, a, b: False)
    expected = 0 if gradient == "backprop" else 1
    assert reads_of(reads, {"step_size": 0.02}, "rk4", gradient, backward=True)[0] == expected


@pytest.mark.parametrize("gradient", STANDARD)
def test_the_backward_pass_reads_nothing_without_its_check(reads, gradient):
    unchecked = replace(GRADIENTS[gradient], check=False)
    assert reads_of(reads, {"step_size": 0.02}, "rk4", unchecked, backward=True)[0] == 0
