"""Sketches of states by number."""

import math

import pytest
import torch

from symplectic_adjoint.backward.state_sketch import StateSketch


@pytest.mark.parametrize("n", [0, 1, 8, 15])
def test_a_small_state_is_its_own_sketch(n):
    y = torch.arange(float(n))
    sketch = StateSketch(y)
    assert torch.equal(sketch.numbers, y) and sketch.spread == 1.0
    y += 1.0
    assert not len(y) or not torch.equal(sketch.numbers, y)


def test_a_larger_one_has_eight_sums_and_the_entries_left_over():
    # Three rows of eight with the weights 1, 3/2 and 2, and two entries more.
    y = torch.arange(26.0, dtype=torch.float64)
    sums = [n + 1.5 * (8 + n) + 2.0 * (16 + n) for n in range(8)]
    sketch = StateSketch(y)
    assert sketch.numbers.tolist() == [*sums, 24.0, 25.0]
    assert sketch.spread == 2.0 * math.sqrt(3)


def test_two_rows_are_summed():
    assert StateSketch(torch.ones(16)).numbers.tolist() == [3.0] * 8


def test_the_parts_of_complex_numbers_are_numbers():
    y = torch.tensor([1 + 2j, 3 - 4j])
    assert StateSketch(y).numbers.tolist() == [1.0, 2.0, 3.0, -4.0]
    assert StateSketch(y.conj()).numbers.tolist() == [1.0, -2.0, 3.0, 4.0]


def test_differences_are_those_of_the_numbers():
    one, other = StateSketch(torch.tensor([5.0, 7.0])), StateSketch(torch.tensor([2.0, 9.0]))
    assert one.minus(other).tolist() == [3.0, -2.0]


@pytest.mark.parametrize("change", [torch.neg, lambda y: y.flip(0), lambda y: y + (torch.arange(64) == 40)])
def test_a_changed_state_has_another_sketch(change):
    y = torch.arange(1.0, 65.0)
    assert not torch.equal(StateSketch(y).numbers, StateSketch(change(y)).numbers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_sums(dtype):
    y = torch.linspace(0.0, 1.0, 50) / 3.0
    with torch.autocast("cpu", dtype=dtype):
        sketch = StateSketch(y)
    assert torch.equal(sketch.numbers, StateSketch(y).numbers)
