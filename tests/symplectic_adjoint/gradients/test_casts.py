"""Where func returns another precision than the state's, the cast is part of f and of its transpose."""

import math

import pytest
import torch

import symplectic_adjoint as sa
from tests.gradients import OWN_STEPS, taking_turns
from tests.oracle import relative_error
from tests.symplectic_adjoint.gradients.half_precision import T, start

ALL = list(sa.GRADIENTS)

CASES = (
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.float64, torch.float32),
    (torch.float64, torch.bfloat16),
    (torch.float32, torch.float64),
    (torch.complex128, torch.complex64),
    (torch.complex64, torch.complex128),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.bfloat16),
)


class TestCasts:
    """func may return another precision than the state's, as torchdiffeq allows; no other dtype."""

    @pytest.mark.parametrize(
        ("gradient", "of_y", "of_f", "structure"),
        taking_turns([(*pair, structure) for structure in ("tensor", "tuple", "dict") for pair in CASES], ALL),
    )
    def test_is_part_of_f_and_of_its_transpose(self, gradient, structure, of_y, of_f):
        rate = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        other = torch.ones(2, dtype=of_y)

        def slope(y):
            return (-rate * y).to(of_f)

        def func(t, y):
            if structure == "tensor":
                return slope(y)
            return (slope(y[0]), -y[1]) if structure == "tuple" else {"z": slope(y["z"]), "v": -y["v"]}

        z = torch.linspace(0.5, 1.5, 3).to(of_y).requires_grad_()
        y0 = {"tensor": z, "tuple": (z, other), "dict": {"z": z, "v": other}}[structure]
        method = None if gradient == "mali" else "rk4"
        ys = sa.odeint(func, y0, T, method=method, options={"step_size": 0.05}, gradient=gradient, params=(rate,))
        z_s = ys if structure == "tensor" else ys[0] if structure == "tuple" else ys["z"]
        assert z_s.dtype == of_y
        of_z, of_rate = torch.autograd.grad(z_s[-1].real.double().sum(), (z, rate))
        assert of_z.dtype == of_y and of_rate.dtype == torch.float64
        coarsest = max(torch.finfo(of_f).eps, torch.finfo(of_y).eps)
        bound = 2 * coarsest + 2e-3 * (gradient in OWN_STEPS or gradient == "continuous")  # of their second order
        assert relative_error(of_z.real.double(), math.exp(-0.5) * torch.ones(3, dtype=torch.float64)) < bound + 1e-6
        assert relative_error(of_rate, -math.exp(-0.5) * z.real.double().sum()) < bound + 1e-6

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    @pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
    def test_other_kinds_are_refused(self, gradient, dtype):
        with pytest.raises(ValueError, match="only its precision may differ"):
            sa.odeint(lambda t, y: y.to(dtype), start().abs(), T, gradient=gradient)
        with pytest.raises(ValueError, match="only its precision may differ"):
            sa.odeint(lambda t, y: y.real, start().to(torch.complex64), T, gradient=gradient)
