"""torchcde: neural controlled differential equations by cdeint, whose defaults set the tolerances of a second solve."""

import pytest
import torch
import torchcde
from torch import nn

from tests.clients.gradients import gradients_of

# torchcde's default rtol is 1e-4, the two libraries take other steps, and errors of some tens of steps add up.
ADAPTIVE = 1e-2


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4 * 3))

    def forward(self, t, z):
        return torch.tanh(self.net(z)).view(*z.shape, 3)


SPLINES = {
    "linear": (torchcde.linear_interpolation_coeffs, torchcde.LinearInterpolation),
    "cubic": (torchcde.natural_cubic_coeffs, torchcde.CubicSpline),
    "hermite": (torchcde.hermite_cubic_coefficients_with_backward_differences, torchcde.CubicSpline),
}
CALLS = {
    "fixed": {"method": "rk4", "options": {"step_size": 0.5}},
    "its defaults": {},
    "jumps": {"method": "dopri5", "options": {"jump_t": torch.arange(6.0, dtype=torch.float64)}},
}


def trained(spline, call, *, adjoint, encoded):
    """Train the field, its start and, if `encoded`, an encoder whose outputs the spline's coefficients are made of."""
    coefficients, interpolation = SPLINES[spline]
    field, encoder, start = Field(), nn.Linear(3, 3), nn.Linear(3, 4)
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
    of_path = coefficients(encoder(x) if encoded else x)
    path = interpolation(of_path)
    keywords = CALLS[call]
    if encoded and adjoint:  # as torchcde's documentation asks
        keywords = {**keywords, "adjoint_params": (*field.parameters(), of_path)}
    zs = torchcde.cdeint(X=path, func=field, z0=start(path.evaluate(0.0)), t=path.interval, adjoint=adjoint, **keywords)
    zs[:, -1].square().sum().backward()
    return gradients_of(field, start, encoder)


@pytest.mark.parametrize("spline", SPLINES)
@pytest.mark.parametrize("encoded", [False, True], ids=["data", "encoded"])
def test_fixed_steps(compare, spline, encoded):
    compare(
        lambda: trained(spline, "fixed", adjoint=True, encoded=encoded),
        lambda: trained(spline, "fixed", adjoint=False, encoded=encoded),
    )


# With linear interpolation its documentation asks for jump_t.
@pytest.mark.parametrize(
    ("spline", "call"),
    [("linear", "jumps"), ("cubic", "jumps"), ("cubic", "its defaults"), ("hermite", "its defaults")],
)
def test_adaptive_steps(compare, spline, call):
    compare(
        lambda: trained(spline, call, adjoint=True, encoded=False),
        lambda: trained(spline, call, adjoint=False, encoded=False),
        ADAPTIVE,
    )


def test_an_encoder_whose_coefficients_are_not_named(compare):
    """Without adjoint_params torchdiffeq's adjoint loses the encoder's gradient; here it is found."""

    def unnamed():
        field, encoder = Field(), nn.Linear(3, 3, bias=False)  # a path's slope does not depend on a bias
        x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
        path = torchcde.CubicSpline(torchcde.natural_cubic_coeffs(encoder(x)))
        zs = torchcde.cdeint(X=path, func=field, z0=torch.ones(2, 4), t=path.interval, adjoint=False, **CALLS["fixed"])
        zs[:, -1].square().sum().backward()
        return gradients_of(field, encoder)

    compare(unnamed, unnamed)
