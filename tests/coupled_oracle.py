"""The stages of a fully implicit step by the implicit function theorem, sharing no code with the solver."""

import torch


def coupled_stages(func, times, y, h, A):
    """Return all k_i = func(times[i], y + h sum_j A[i][j] k_j), on the graph of y, h, the times and func's parameters.

    By Newton's method with the whole Jacobian, whose last iteration is on the graph: there the Jacobian is a constant
    and the stages solve their equations, so that the derivative is that of the implicit function.
    """
    s = len(A)
    weights = torch.tensor([[float(a) for a in row] for row in A], dtype=y.dtype)

    def values(at, start, size, ks):
        states = start + size * torch.einsum("ij,j...->i...", weights, ks)
        return torch.stack([func(time, state) for time, state in zip(at, states, strict=True)])

    with torch.no_grad():
        at, ks = [time.detach() for time in times], torch.zeros(s, *y.shape, dtype=y.dtype)
        M = torch.eye(ks.numel(), dtype=y.dtype)
        for _ in range(50):
            J = torch.autograd.functional.jacobian(lambda x: values(at, y, h, x), ks)
            M = torch.eye(ks.numel(), dtype=y.dtype) - J.reshape(ks.numel(), ks.numel())
            change = torch.linalg.solve(M, (values(at, y, h, ks) - ks).reshape(-1)).reshape(ks.shape)
            ks = ks + change
            if change.abs().max() <= 1e-15 * ks.abs().max():
                break
    residual = (values(times, y, h, ks) - ks).reshape(-1)
    return list(ks + torch.linalg.solve(M, residual).reshape(ks.shape))
