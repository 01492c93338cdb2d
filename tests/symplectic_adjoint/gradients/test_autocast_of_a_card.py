"""The library's own operations under the autocast of a card, which casts products of matrices and vectors too."""

import pytest
import torch

from tests.pretend_autocast import autocast_of_a_card
from tests.solve_cases import EXPLICIT_CASES, IMPLICIT_CASES, Neighbours, T, start

LOWER = {torch.float32: torch.bfloat16, torch.bfloat16: torch.bfloat16, torch.float16: torch.float16}
"""The dtype of autocast for each of y."""
FEW_OUTPUTS = {name: case for name, case in EXPLICIT_CASES.items() if not name.startswith(("outputs", "dense"))}


def results(case, forward, backward, *, dtype=torch.float32):
    """Return all results of a solve, with autocast on in its forward pass or in its backward pass, or not."""
    solve, keywords = case
    func, y0 = Neighbours().to(dtype), start().to(dtype).requires_grad_()
    t = T.clone().requires_grad_(dtype == torch.float32)
    with torch.autocast("cpu", dtype=LOWER[dtype], enabled=forward):
        ys, others = solve(func, y0, t, **keywords)
    inputs = [x for x in (y0, t, *func.parameters()) if x.requires_grad]
    weights = torch.linspace(0.5, 1.5, ys.numel()).to(dtype).view(ys.shape)
    with torch.autocast("cpu", dtype=LOWER[dtype], enabled=backward):
        bars = torch.autograd.grad(ys, inputs, weights, allow_unused=True)
    return [ys.detach(), *others, *bars]


@pytest.fixture(scope="module")
def a_card():
    with autocast_of_a_card() as casts:
        yield casts


@pytest.fixture
def casts(a_card):
    a_card.clear()
    return a_card


def require_none(casts, case, *where, **keywords):
    found = results(case, *where, **keywords)
    assert casts == []
    for a, b in zip(found, results(case, False, False, **keywords), strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("where", [(True, True), (False, True)], ids=["both", "backward"])
@pytest.mark.parametrize("case", EXPLICIT_CASES.values(), ids=EXPLICIT_CASES)
def test_nothing_of_a_solve_is_cast(casts, case, where):
    require_none(casts, case, *where)


@pytest.mark.parametrize("case", IMPLICIT_CASES.values(), ids=IMPLICIT_CASES)
def test_nothing_of_the_backward_pass_of_an_implicit_method_is_cast(casts, case):
    require_none(casts, case, False, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", FEW_OUTPUTS.values(), ids=FEW_OUTPUTS)
def test_nothing_is_widened_where_the_state_is_in_half_precision(casts, case, dtype):
    require_none(casts, case, True, True, dtype=dtype)
