"""GMRES, factors of I - hg J, and Jacobians from VJPs, against dense linear algebra."""

import pytest
import torch
from torch import nn

from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.jacobian import jacobian, products, samples_interact, transposed_product
from symplectic_adjoint.field.linear_systems import Factors, gmres
from symplectic_adjoint.field.linearization import Linearization
from tests.fields import SmallNet, start
from tests.oracle import relative_error

HG = 0.3


def matrix(size, seed=0, dtype=torch.float64):
    """Return a well-conditioned matrix without any symmetry."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.eye(size) * 4.0 + torch.randn(size, size, generator=generator)).to(dtype)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def linearized(func, y):
    y = y.clone().requires_grad_()
    k = func(y)
    return Linearization(edge_to(k) if k.requires_grad else None, (y,), None)


@pytest.mark.parametrize("shape", [(7,), (2, 3), (1,)])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-13])
def test_gmres_solves(shape, preconditioned, tolerance):
    n = torch.Size(shape).numel()
    A, rhs = matrix(n), torch.randn(shape, dtype=torch.float64)
    rough = torch.linalg.inv(A + 0.1 * matrix(n, seed=1))
    calls = []

    def product(x):
        calls.append(x)
        return (A @ x.flatten()).view(shape)

    precondition = (lambda x: (rough @ x.flatten()).view(shape)) if preconditioned else None
    x = gmres(product, rhs, tolerance=tolerance, precondition=precondition)
    assert torch.linalg.vector_norm(product(x) - rhs) <= 1.01 * tolerance * torch.linalg.vector_norm(rhs)
    assert x.shape == shape and len(calls) <= n + 1
    if tolerance < 1e-4:
        assert relative_error(x, torch.linalg.solve(A, rhs.flatten()).view(shape)) < 1e-12


def test_gmres_in_float32():
    A, rhs = matrix(6, dtype=torch.float32), torch.randn(6)
    x = gmres(lambda v: A @ v, rhs, tolerance=1e-6)
    assert x.dtype == torch.float32 and relative_error(x, torch.linalg.solve(A, rhs)) < 1e-5


def test_a_perfect_preconditioner_takes_one_product():
    A, rhs, calls = matrix(9), torch.randn(9, dtype=torch.float64), []

    def product(v):
        calls.append(v)
        return A @ v

    x = gmres(product, rhs, tolerance=1e-10, precondition=lambda v: torch.linalg.solve(A, v))
    assert len(calls) == 1 and relative_error(x, torch.linalg.solve(A, rhs)) < 1e-12


def test_gmres_of_zero_is_zero_without_a_product():
    def product(v):
        raise AssertionError("not called")

    rhs = torch.zeros(4, dtype=torch.float64)
    x = gmres(product, rhs, tolerance=1e-4)
    assert not x.any() and x is not rhs


def test_gmres_of_a_singular_matrix_returns_the_nearest_image_or_nothing_finite():
    A = torch.diag(vector(1.0, 2.0, 0.0))
    x = gmres(lambda v: A @ v, vector(1.0, 1.0, 0.1), tolerance=1e-12)
    assert torch.allclose(A @ x, vector(1.0, 1.0, 0.0), atol=1e-12)
    assert not gmres(lambda v: A @ v, vector(0.1, 0.1, 1.0), tolerance=1e-12).isfinite().any()
    assert not gmres(torch.zeros_like, vector(1.0, 1.0, 1.0), tolerance=1e-12).isfinite().any()


@pytest.mark.parametrize("scale", [1e-100, 1e-20, 1e20, 1e100])
def test_gmres_does_not_depend_on_the_size_of_its_right_hand_side(scale):
    A, rhs = matrix(6), torch.randn(6, dtype=torch.float64)
    x = gmres(lambda v: A @ v, scale * rhs, tolerance=1e-12)
    assert relative_error(x / scale, torch.linalg.solve(A, rhs)) < 1e-11


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gmres_returns_what_is_not_finite(bad):
    rhs = torch.ones(3, dtype=torch.float64)
    assert not gmres(lambda v: v * bad, rhs, tolerance=1e-4).isfinite().all()
    assert not gmres(lambda v: v, rhs * bad, tolerance=1e-4).isfinite().all()


def test_gmres_gives_up_after_its_products():
    n, calls = 30, []
    shift = torch.roll(torch.eye(n, dtype=torch.float64), 1, 0)  # the slowest matrix of all: it needs n products

    def product(v):
        calls.append(v)
        return shift @ v

    rhs = torch.zeros(n, dtype=torch.float64)
    rhs[0] = 1.0
    x = gmres(product, rhs, tolerance=1e-8, restart=10)
    assert len(calls) == 10 and not x.isfinite().any()  # the nearest x is 0
    assert torch.equal(shift @ gmres(product, rhs, tolerance=1e-8), rhs)


@pytest.mark.parametrize("blocks", [1, 4])
def test_factors_are_the_inverse(blocks):
    J = torch.stack([matrix(3, seed) for seed in range(blocks)])
    M = torch.eye(3, dtype=torch.float64) - HG * J
    factors, r = Factors(J, HG), torch.randn(blocks, 3, dtype=torch.float64)
    assert relative_error(factors.solve(r), torch.linalg.solve(M, r[..., None])[..., 0]) < 1e-13
    assert relative_error(factors.solve_transposed(r), torch.linalg.solve(M.mT, r[..., None])[..., 0]) < 1e-13


def test_factors_of_a_singular_matrix_give_no_finite_solution():
    J = torch.eye(2, dtype=torch.float64)[None] / 0.5
    r = torch.ones(2, dtype=torch.float64)
    assert not Factors(J, 0.5).solve(r).isfinite().any()
    assert not Factors(J, 0.5).solve_transposed(r).isfinite().any()


def test_a_jacobian_is_that_of_autograd():
    net, y, t = SmallNet(), start(), torch.tensor(0.3).double()
    expected = torch.autograd.functional.jacobian(lambda x: net(t, x), y)
    at = linearized(lambda x: net(t, x), y)
    dense = jacobian(at, 1)
    assert dense.shape == (1, 12, 12) and relative_error(dense[0], expected.reshape(12, 12)) < 1e-14
    batched = jacobian(at, 4)
    assert batched.shape == (4, 3, 3)
    for b in range(4):
        assert relative_error(batched[b], expected[b, :, b]) < 1e-14


def test_products_with_a_jacobian_are_those_of_autograd():
    net, y, t = SmallNet(), start(), torch.tensor(0.3).double()
    J = torch.autograd.functional.jacobian(lambda x: net(t, x), y).reshape(12, 12)
    at, straight = linearized(lambda x: net(t, x), y), None
    straight = products(at)
    for seed in (1, 2):  # the graph is used again
        v = start(seed=seed)
        assert relative_error(straight(v).flatten(), J @ v.flatten()) < 1e-14
        assert relative_error(transposed_product(at, v).flatten(), J.T @ v.flatten()) < 1e-14


class NoBatchingRule(torch.autograd.Function):
    """A square with a backward pass that vmap cannot go through."""

    calls = 0

    @staticmethod
    def forward(ctx, y):
        ctx.save_for_backward(y)
        return y * y

    @staticmethod
    def backward(ctx, k_bar):
        (y,) = ctx.saved_tensors
        k_bar.sum().item()
        NoBatchingRule.calls += 1
        return 2.0 * y * k_bar


@pytest.mark.parametrize("blocks", [1, 4])
def test_a_jacobian_without_a_batching_rule_is_made_row_by_row(blocks):
    y, NoBatchingRule.calls = start(), 0
    found = jacobian(linearized(NoBatchingRule.apply, y), blocks)
    assert torch.equal(found.diagonal(dim1=1, dim2=2).reshape(-1), 2.0 * y.flatten())
    assert torch.equal(found, torch.diag_embed(found.diagonal(dim1=1, dim2=2)))
    assert NoBatchingRule.calls >= 12 // blocks


@pytest.mark.parametrize("func", [torch.ones_like, lambda y: y.detach() * 2.0, lambda y: 0.0 * y + 1.0])
def test_a_jacobian_of_a_constant_is_zero(func):
    at, v = linearized(func, start()), start(seed=2)
    assert not jacobian(at, 1).any() and not jacobian(at, 4).any()
    assert not products(at)(v).any() and not transposed_product(at, v).any()
    assert not samples_interact(at)


def test_a_jacobian_of_what_reads_another_input_is_zero():
    other = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    at, v = linearized(lambda y: other.sin(), start()), start(seed=2)
    assert not jacobian(at, 1).any() and not products(at)(v).any() and not transposed_product(at, v).any()


def attention(y):
    return torch.softmax(y @ y.T, -1) @ y


INTERACTING = {
    "batch norm": nn.BatchNorm1d(3, dtype=torch.float64).train(),
    "attention over the batch": attention,
    "mean": lambda y: y - y.mean(0),
    "one pair": lambda y: y + torch.cat([1e-6 * y[1:2], torch.zeros_like(y[1:])]),
    "reversed": lambda y: y.flip(0),
}
INDEPENDENT = {
    "network": nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).double(),
    "batch norm in evaluation": nn.BatchNorm1d(3, dtype=torch.float64).eval(),
    "weighted by sample": lambda y: y * torch.arange(4.0, dtype=torch.float64)[:, None],
    "coupled components": lambda y: y.cumsum(1),
}


@pytest.mark.parametrize("name", INTERACTING)
def test_samples_that_interact(name):
    assert samples_interact(linearized(INTERACTING[name], start()))


@pytest.mark.parametrize("name", INDEPENDENT)
def test_samples_that_do_not_interact(name):
    assert not samples_interact(linearized(INDEPENDENT[name], start()))


def test_the_probe_leaves_the_callers_random_numbers_alone():
    state = torch.get_rng_state()
    samples_interact(linearized(attention, start()))
    assert torch.equal(torch.get_rng_state(), state)
