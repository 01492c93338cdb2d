"""Whether the entries of a tensor are finite."""

import math

import pytest
import torch

from symplectic_adjoint.field.finite import all_finite, first_non_finite

NOT_FINITE = [math.inf, -math.inf, math.nan]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@every_dtype
@pytest.mark.parametrize("shape", [(0,), (), (3, 5)], ids=str)
def test_finite_entries_are_finite_even_if_their_sum_is_not(shape, dtype):
    largest = torch.full(shape, torch.finfo(dtype).max, dtype=dtype)
    for x in (torch.zeros_like(largest), largest, -largest):
        assert all_finite(x)
        assert first_non_finite(x) is None


@every_dtype
@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("other", [0.0, math.inf, -math.inf])
def test_one_that_is_not_is_found_even_if_another_cancels_it(value, other, dtype):
    x = torch.zeros(3, 5, dtype=dtype)
    x[1, 2], x[2, 4] = value, other
    assert not all_finite(x)
    assert first_non_finite(x) == 7


@pytest.mark.parametrize("value", NOT_FINITE)
def test_an_imaginary_part_counts(value):
    x = torch.tensor([1.0, complex(1.0, value)])
    assert not all_finite(x)
    assert first_non_finite(x) == 1
