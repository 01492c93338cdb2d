"""Continuous normalizing flows: traces, densities, scales."""

import math

import pytest
import torch

from symplectic_adjoint import odeint
from symplectic_bench.models.flow import (
    ImageFlow,
    ImageVelocity,
    bits_per_dim,
    exact_trace,
    logits,
    push_forward,
    tabular_flow,
)
from symplectic_bench.problems.flow import Transport

SOLVED = 1e-9
"""The error of a solve at 1e-11."""


def integrate(func, y0, t):
    return odeint(func, y0, t, method="dopri8", rtol=1e-11, atol=1e-11)


def numbers(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def flow():
    torch.manual_seed(0)
    return tabular_flow(dim=3, components=2, width=6, layers=2, nonlinearity="tanh").double()


def test_the_exact_trace_is_that_of_the_jacobian(flow):
    z, t = numbers(4, 3), torch.tensor(0.3, dtype=torch.float64)
    velocity = flow.components[0].velocity
    found = Transport(velocity, None)(t, torch.cat([z, z[:, :1]], dim=1))[:, -1]
    jacobians = [torch.autograd.functional.jacobian(lambda x: velocity(t, x[None])[0], row) for row in z]
    expected = torch.stack([-jacobian.trace() for jacobian in jacobians])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_the_estimated_trace_is_unbiased(flow):
    """Its mean over all sign vectors, which are equally likely, is the trace."""
    z, t = numbers(4, 3), torch.tensor(0.3, dtype=torch.float64)
    state = torch.cat([z, z[:, :1]], dim=1)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    found = [Transport(flow.components[0].velocity, sign.expand(4, 3))(t, state)[:, -1] for sign in signs]
    expected = Transport(flow.components[0].velocity, None)(t, state)[:, -1]
    torch.testing.assert_close(torch.stack(found).mean(dim=0), expected, rtol=1e-13, atol=1e-13)


def test_the_density_obeys_the_change_of_variables(flow):
    x = numbers(2, 3)
    with torch.no_grad():
        found = flow.log_density(x, integrate, exact_trace)
    for row, log_density in zip(x, found, strict=True):

        def end(point):
            return push_forward(flow.components, point[None], integrate, exact_trace)[0][0]

        z = end(row).detach()
        log_determinant = torch.linalg.slogdet(torch.autograd.functional.jacobian(end, row))[1]
        normal = -0.5 * (z.square().sum() + 3 * math.log(2 * math.pi))
        assert abs(float(log_density - normal - log_determinant)) < SOLVED


def test_a_flow_in_one_dimension_is_a_density():
    torch.manual_seed(0)
    flow = tabular_flow(dim=1, components=1, width=8, layers=1, nonlinearity="softplus").double()
    x = torch.linspace(-12, 12, 2001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        density = flow.log_density(x, integrate, exact_trace).exp()
    assert abs(float(torch.trapezoid(density, x[:, 0])) - 1) < 1e-6  # the tails beyond 12


def test_the_flow_for_mnist_has_ten_components():
    assert ImageFlow(1, 28, scales=3, blocks=2, width=2, layers=1).components == 10


def test_the_density_of_an_image_obeys_the_change_of_variables():
    """Over two scales, with half of the channels final after the first."""
    torch.manual_seed(0)
    flow = ImageFlow(1, 2, scales=2, blocks=1, width=3, layers=1).double()
    x = 0.5 * numbers(1, 4)

    def end(point):
        first, second, third = flow.scales
        z, _ = push_forward(first, point[None], integrate, exact_trace)
        z = torch.nn.functional.pixel_unshuffle(z.view(1, 1, 2, 2), 2).flatten(1)
        z, _ = push_forward(second, z, integrate, exact_trace)
        done, z = z.chunk(2, dim=1)
        return torch.cat([done, push_forward(third, z, integrate, exact_trace)[0]], dim=1)[0]

    with torch.no_grad():
        found = float(flow.log_density(x, integrate, exact_trace)[0])
    z = end(x[0]).detach()
    log_determinant = torch.linalg.slogdet(torch.autograd.functional.jacobian(end, x[0]))[1]
    expected = -0.5 * float(z.square().sum() + 4 * math.log(2 * math.pi)) + float(log_determinant)
    assert abs(found - expected) < SOLVED


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="3 scales need a size divisible by 4; got 6"):
        ImageFlow(1, 6, scales=3, blocks=1, width=2, layers=1)


def test_the_velocity_of_an_image_depends_on_time():
    velocity = ImageVelocity((1, 2, 2), width=3, layers=1).double()
    z = numbers(1, 4)
    early, late = (velocity(torch.tensor(t, dtype=torch.float64), z) for t in (0.0, 1.0))
    assert early.shape == z.shape and not torch.equal(early, late)


def test_logits_come_with_their_log_determinant():
    pixels = torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    x, stretch = logits(pixels)
    (slope,) = torch.autograd.grad(x.sum(), pixels)
    torch.testing.assert_close(stretch, slope.log().sum(dim=1), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(logits(torch.tensor([[0.0, 1.0]]))[0]).all()


def test_a_uniform_density_over_256_levels_takes_eight_bits_a_pixel():
    assert float(bits_per_dim(torch.tensor(0.0), dim=5, levels=256)) == pytest.approx(8)
