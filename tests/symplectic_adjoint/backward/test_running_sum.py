"""Sums of tensors that belong to others, in three precisions."""

import pytest
import torch

from symplectic_adjoint.backward.running_sum import ACCUMULATIONS, running_sum

every_kind = pytest.mark.parametrize("accumulate", [None, *ACCUMULATIONS])


def filled(accumulate, *terms):
    made = running_sum(accumulate)
    for term in terms:
        made.add(term)
    return made


@every_kind
def test_terms_are_not_changed_and_the_total_is_nobodys(accumulate):
    terms = [torch.tensor([float(n)], dtype=torch.float64) for n in (1, 2, 4)]
    for n, expected in ((1, 1.0), (2, 3.0), (3, 7.0)):
        made = filled(accumulate, *terms[:n])
        total = made.total()
        assert total.item() == expected
        total.zero_()
        assert [x.item() for x in terms] == [1.0, 2.0, 4.0]


@every_kind
def test_without_terms_there_is_no_total(accumulate):
    assert running_sum(accumulate).total() is None


@every_kind
def test_a_first_term_in_the_sums_precision_is_not_copied(accumulate):
    term = torch.ones(3, dtype=torch.float64)
    assert filled(accumulate, term).value is term


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(torch.float32, torch.float64), (torch.complex64, torch.complex128), (torch.float64, torch.float64)],
)
def test_a_wide_sum_has_the_widest_precision_of_its_kind(dtype, wide):
    made = filled("float64", *(torch.ones(2, dtype=dtype) for _ in range(3)))
    assert made.total().dtype == wide and made.total()[0] == 3


def test_what_roundings_lose_comes_back_in_a_compensated_sum():
    # Each 2^-24 is half a unit in the last place of 1, and is lost one at a time; four of them are two units.
    terms = [torch.ones(1), *(torch.full((1,), 2.0**-24) for _ in range(4))]
    assert filled(None, *terms).total().item() == 1.0
    assert filled("compensated", *terms).total().item() == 1.0 + 2.0**-22
    # The error of an addition is that of the smaller term, whichever it is.
    assert filled("compensated", *reversed(terms)).total().item() == 1.0 + 2.0**-22
