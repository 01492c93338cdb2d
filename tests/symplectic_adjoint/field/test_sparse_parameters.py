"""Parameters that are sparse, and parameters whose gradients are: the gradient is that of backpropagation."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import weighted_loss
from tests.oracle import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
GRADIENTS = [
    "symplectic",
    "stages",
    "aca",
    "baseline",
    "auto",
    "revolve",
    sa.Auto(20_000),
    sa.Symplectic(graphs=3),
    sa.Revolve(1),
]
DENSE = torch.tensor([[0.3, 0.0, 0.0, 1.1], [0.0, -0.4, 0.0, 0.0], [0.7, 0.2, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0]]).double()


class Graph(nn.Module):
    """A layer with trainable edge weights, and one that is dense."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.edges, self.mix = nn.Parameter(getattr(DENSE, layout)()), nn.Linear(3, 3).double()

    def forward(self, t, y):
        return torch.tanh(self.mix(self.edges @ y))


class Embedded(nn.Module):
    """A state scaled by rows of a table, the gradient of which is sparse."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(6, 3, sparse=True, dtype=torch.float64)

    def forward(self, t, y):
        return torch.tanh(y * self.table(torch.tensor([1, 4, 1, 0])))


def held_by_module(func):
    return func


def in_a_closure(func):
    def closed(t, y):
        return func.forward(t, y)

    return closed


KINDS = [(Graph, "to_sparse"), (Graph, "to_sparse_csr"), (Embedded, "")]
kinds = pytest.mark.parametrize(("kind", "layout"), KINDS, ids=["coo", "csr", "embedding"])


def grads(kind, layout, wrap=held_by_module, **options):
    func, y0 = kind(layout), torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(4, 3).requires_grad_()
    weighted_loss(sa.odeint(wrap(func), y0, T, **options)).backward()
    found = [y0.grad, *(p.grad for p in func.parameters())]
    assert all(x is not None for x in found)
    return torch.cat([x.to_dense().flatten() for x in found])


@pytest.mark.parametrize("wrap", [held_by_module, in_a_closure])
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
@kinds
def test_exact_gradients(kind, layout, gradient, method, wrap):
    expected = grads(kind, layout, method=method, gradient="backprop")
    # as in the other tests of exactness: the sums differ in order only
    assert relative_error(grads(kind, layout, wrap, method=method, gradient=gradient), expected) < 1e-13


@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
@kinds
def test_sums_in_another_precision(kind, layout, accumulate):
    expected = grads(kind, layout, method="rk4", gradient="backprop")
    assert relative_error(grads(kind, layout, method="rk4", accumulate=accumulate), expected) < 1e-13


@pytest.mark.parametrize("gradient", ["continuous", "reversible"])
@kinds
def test_gradients_with_steps_of_their_own(kind, layout, gradient):
    options = {"method": "rk4", "options": {"step_size": 0.01}}
    expected = grads(kind, layout, **options, gradient="backprop")
    # rk4 with h = 0.01 is off by about h^4
    assert relative_error(grads(kind, layout, **options, gradient=gradient), expected) < 1e-7


@kinds
def test_implicit_methods(kind, layout):
    expected = grads(kind, layout, method="sdirk2", options={"step_size": 0.1}, gradient="backprop")
    found = grads(kind, layout, method="sdirk2", options={"step_size": 0.1}, gradient="symplectic")
    assert relative_error(found, expected) < 1e-11  # as exact as the stages are solved


@kinds
def test_a_number_of_steps_stores_each_entry_once(kind, layout):
    """torch concatenates the entries of sparse tensors that it adds: in 4,000 stages they would take 4,000 times."""
    func, y0 = kind(layout), torch.ones(4, 3, dtype=torch.float64)
    sa.odeint(in_a_closure(func), y0, T[:2], method="rk4", options={"step_size": 1e-3}).sum().backward()
    for p in func.parameters():
        if p.grad.layout is torch.sparse_coo:
            assert p.grad._nnz() <= p.numel()


def test_an_optimizer_of_sparse_gradients():
    func, y0 = Embedded(""), torch.ones(4, 3, dtype=torch.float64)
    before = func.table.weight.detach().clone()
    optimizer = torch.optim.SparseAdam(func.parameters(), lr=0.1)
    sa.odeint(func, y0, T, method="rk4").sum().backward()
    optimizer.step()
    changed = (func.table.weight.detach() != before).any(1)
    assert changed.tolist() == [True, True, False, False, True, False]


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_capturing_is_refused_in_a_sentence(layout):
    with pytest.raises(sa.NotCapturable, match="a parameter of func is a sparse tensor"):
        grads(Graph, layout, method="rk4", capture=True)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_a_parameter_that_is_not_a_modules(layout):
    def gradient_of(gradient):
        edges = getattr(DENSE, layout)().requires_grad_()
        ys = sa.odeint(
            lambda t, y: torch.tanh(edges @ y), torch.ones(4, 3).double(), T, method="rk4", gradient=gradient
        )
        weighted_loss(ys).backward()
        return edges.grad.to_dense()

    assert relative_error(gradient_of("symplectic"), gradient_of("backprop")) < 1e-13


@kinds
def test_second_derivatives(kind, layout):
    def second(gradient):
        func, y0 = kind(layout), torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(4, 3).requires_grad_()
        ys = sa.odeint(func, y0, T, method="rk4", gradient=gradient)
        (first,) = torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)
        (first**2).sum().backward()
        return torch.cat([x.grad.to_dense().flatten() for x in (y0, *func.parameters())])

    assert relative_error(second("symplectic"), second("backprop")) < 1e-12


@pytest.mark.parametrize("how", ["functional", "bag", "gather"])
def test_every_source_of_sparse_gradients(how):
    """A sparse gradient stays sparse, so that optimizers of such gradients take it."""

    class Looked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.shift = nn.Parameter(torch.randn(6, 3).double()), nn.Parameter(torch.randn(3).double())

        def forward(self, t, y):
            at = torch.tensor([1, 4, 1, 0])
            if how == "functional":
                rows = nn.functional.embedding(at, self.table, sparse=True)
            elif how == "bag":
                rows = nn.functional.embedding_bag(at[:, None], self.table, mode="sum", sparse=True)
            else:
                rows = torch.gather(self.table, 0, at[:, None].expand(4, 3), sparse_grad=True)
            return torch.tanh(y * rows + self.shift)

    def gradient_of(gradient):
        func = Looked()
        weighted_loss(sa.odeint(func, torch.ones(4, 3).double(), T, method="rk4", gradient=gradient)).backward()
        assert func.table.grad.layout is torch.sparse_coo and func.shift.grad.layout is torch.strided
        return torch.cat([func.table.grad.to_dense().flatten(), func.shift.grad])

    assert relative_error(gradient_of("symplectic"), gradient_of("backprop")) < 1e-13
