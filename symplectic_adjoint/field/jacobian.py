"""The Jacobian of f from one call on a graph: as a matrix for each block of the state, or as products alone."""

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint.field.compiled_graphs import refuse_compiled
from symplectic_adjoint.field.linear_systems import Product
from symplectic_adjoint.field.linearization import Linearization


def _pulled(output: Tensor | GradientEdge, y: Tensor, w: Tensor, **how: bool) -> Tensor | None:
    """Return w^T d(output)/dy, None if that is zero, and retain the graph."""
    try:
        return torch.autograd.grad((output,), (y,), (w,), retain_graph=True, allow_unused=True, **how)[0]
    except RuntimeError as error:
        refuse_compiled(error)
        raise


def transposed_product(at: Linearization, w: Tensor) -> Tensor:
    """Return J^T w, and retain the graph."""
    if at.edge is None:
        return torch.zeros_like(w)
    found = _pulled(at.edge, at.inputs[0], w)
    return torch.zeros_like(w) if found is None else found


def products(at: Linearization) -> Product:
    """Return v -> J v, from the derivative of u -> J^T u, whose graph is made once."""
    y = at.inputs[0]
    if at.edge is None:
        return torch.zeros_like
    with torch.enable_grad():
        u = torch.zeros_like(y, requires_grad=True)
        pulled = _pulled(at.edge, y, u, create_graph=True)

    def product(v: Tensor) -> Tensor:
        if pulled is None or not pulled.requires_grad:
            return torch.zeros_like(v)
        found = _pulled(pulled, u, v)
        return torch.zeros_like(v) if found is None else found

    return product


def jacobian(at: Linearization, blocks: int) -> Tensor:
    """Return J of shape (blocks, n, n), with one block for each of as many parts of the state that do not interact.

    Row j of all blocks comes from one VJP. They are vectorized where torch can vectorize the backward pass of f.
    """
    y = at.inputs[0]
    n = y.numel() // blocks
    if at.edge is None:
        return torch.zeros(blocks, n, n, dtype=y.dtype, device=y.device)
    rows = torch.eye(n, dtype=y.dtype, device=y.device)[:, None, :].expand(n, blocks, n).reshape(n, *y.shape)
    try:
        found = _pulled(at.edge, y, rows, is_grads_batched=True)
    except RuntimeError:  # an operation without a batching rule
        found = torch.stack([transposed_product(at, row) for row in rows])
    if found is None:
        return torch.zeros(blocks, n, n, dtype=y.dtype, device=y.device)
    return found.reshape(n, blocks, n).transpose(0, 1)


def samples_interact(at: Linearization) -> bool:
    """Return whether df/dy couples entries along the state's first dimension.

    With a cotangent v and one random number u_b for each sample, J^T (u v) is u J^T v if no sample's f depends on
    another sample's y, and for almost no u otherwise.
    """
    y = at.inputs[0]
    generator = torch.Generator("cpu").manual_seed(0)  # the caller's random numbers are left alone

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(y.dtype).to(y.device)

    u, v = drawn(len(y), *(1,) * (y.ndim - 1)), drawn(*y.shape)
    expected, found = u * transposed_product(at, v), transposed_product(at, u * v)
    size = torch.linalg.vector_norm(expected).item()
    off = torch.linalg.vector_norm(found - expected).item()
    return not off <= 1e3 * torch.finfo(y.dtype).eps * size
