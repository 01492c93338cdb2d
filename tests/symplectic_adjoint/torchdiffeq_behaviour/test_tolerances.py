"""rtol and atol may be what torchdiffeq takes: numbers of any kind, arrays, tensors and lists, with its meaning."""

from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import torchdiffeq

import symplectic_adjoint as sa
from tests.gradients import FORWARD
from tests.symplectic_adjoint.torchdiffeq_behaviour.shared import Swing, swing_start, times

T = times(0.0, 2.0)
OF_PARTS = {
    "tensor": torch.tensor([1e-7, 1e-4]),
    "array": np.array([1e-7, 1e-4]),
    "float32-array": np.array([1e-7, 1e-4], dtype=np.float32),
    "numbers": (np.float32(1e-7), np.float64(1e-4)),
    "arrays": [np.array(1e-7), np.full(4, 1e-4)],
    "flat": (torch.full((3,), 1e-7), torch.full((4,), 1e-4)),
}
OF_ENTRIES = {
    "list": [1e-7, 1e-4, 1e-6],
    "tuple": (1e-7, 1e-4, 1e-6),
    "array": np.array([1e-7, 1e-4, 1e-6]),
    "tensor": torch.tensor([1e-7, 1e-4, 1e-6]),
    "list-of-tensors": [torch.tensor(1e-7), torch.tensor(1e-4), np.float32(1e-6)],
    "one": [1e-6],
}
NUMBERS = {
    "float32": np.float32(1e-6),
    "float16": np.float16(1e-6),
    "float64": np.float64(1e-6),
    "int": np.int64(1),
    "array": np.array(1e-6),
    "tensor": torch.tensor(1e-6),
    "tensor-of-int": torch.tensor(1),
    "fraction": Fraction(1, 10**6),
    "decimal": Decimal("1e-6"),
}


class Counting(Swing):
    accepted = 0

    def callback_accept_step(self, t0, y0, dt):
        self.accepted += 1


def of_torchdiffeq(kind, **tolerances):
    """Return the end of torchdiffeq's solution, flattened, and the number of its steps."""
    func = Counting()
    ys = torchdiffeq.odeint(func, swing_start(kind, torch.float64), T, method="dopri5", **tolerances)
    return flat_end(ys), func.accepted


def of_ours(kind, gradient="symplectic", **tolerances):
    solution = sa.solve(Swing(), swing_start(kind, torch.float64), T, gradient=gradient, method="dopri5", **tolerances)
    return flat_end(solution.ys), solution.stats.accepted


def flat_end(ys):
    return torch.cat([y[-1].flatten() for y in (ys if isinstance(ys, tuple) else (ys,))])


def require_alike(kind, plain, gradient="symplectic", bound=1e-3, **tolerances):
    """Require what torchdiffeq takes and returns, and exactly what the same tolerances return as plain floats.

    The ends of the two solves are met differently: they differ by some tolerances.
    """
    ours, steps = of_ours(kind, gradient, **tolerances)
    theirs, their_steps = of_torchdiffeq(kind, **tolerances)
    assert abs(steps - their_steps) <= 2
    assert torch.allclose(ours, theirs, rtol=bound, atol=bound)
    assert steps == of_ours(kind, gradient, **plain)[1]


@pytest.mark.parametrize("gradient", FORWARD)
@pytest.mark.parametrize("value", OF_PARTS.values(), ids=OF_PARTS)
def test_one_for_each_part(gradient, value):
    require_alike("tuple", {"rtol": (1e-7, 1e-4), "atol": 1e-8}, gradient, rtol=value, atol=1e-8)
    require_alike("tuple", {"rtol": 1e-8, "atol": (1e-7, 1e-4)}, gradient, rtol=1e-8, atol=value)


@pytest.mark.parametrize("gradient", FORWARD)
@pytest.mark.parametrize("value", OF_ENTRIES.values(), ids=OF_ENTRIES)
def test_one_for_each_entry(gradient, value):
    plain = torch.as_tensor(value, dtype=torch.float64)
    require_alike("tensor", {"rtol": plain, "atol": 1e-8}, gradient, rtol=value, atol=1e-8)
    require_alike("tensor", {"rtol": 1e-8, "atol": plain}, gradient, rtol=1e-8, atol=value)


@pytest.mark.parametrize("kind", ["tensor", "tuple"])
@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_any_kind(kind, value):
    plain = {"rtol": float(value), "atol": float(value)}
    require_alike(kind, plain, bound=max(1e-3, 10.0 * float(value)), rtol=value, atol=value)
    assert torch.equal(of_ours(kind, rtol=value, atol=value)[0], of_ours(kind, **plain)[0])


@pytest.mark.parametrize("value", [np.float32(1e-5), torch.tensor(1e-5), np.array(1e-5), Fraction(1, 10**5)])
@pytest.mark.parametrize("gradient", ["symplectic", "continuous"])
def test_those_of_the_second_solve_too(gradient, value):
    def bar(value):
        y0 = swing_start("tensor", torch.float64).requires_grad_()
        ys = sa.odeint_adjoint(Swing(), y0, T, gradient=gradient, adjoint_rtol=value, adjoint_atol=value)
        return torch.autograd.grad(ys[-1].sum(), y0)[0]

    with pytest.warns(sa.IgnoredArgumentWarning) if gradient == "symplectic" else nullcontext():
        assert torch.equal(bar(value), bar(float(value)))


@pytest.mark.parametrize(
    "value", [np.array([True, False]), np.array(["a", "b"]), np.array([None, 1.0]), "1e-3", True, 1j, [1e-3, 1j]]
)
@pytest.mark.parametrize("kind", ["tensor", "tuple"])
def test_what_is_no_number_is_refused(kind, value):
    with pytest.raises(TypeError, match=r"rtol.* must be a number"):
        of_ours(kind, rtol=value)


def test_another_number_of_parts_is_refused():
    with pytest.raises(TypeError, match="rtol must be a tuple or list of 2 parts like y0, got 3 parts"):
        of_ours("tuple", rtol=np.full(3, 1e-3))
    with pytest.raises(ValueError, match=r"rtol has shape \(2,\), which does not broadcast to y0's \(3,\)"):
        of_ours("tensor", rtol=[1e-3, 1e-3])
