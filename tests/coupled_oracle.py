"""The stages of a fully implicit step by the implicit function theorem, sharing no code with the solver."""

import torch


def coupled_stages(func, times, y, h, A):
    """Return all k_i = func(times[i], y + h sum_j A[i][j] k_j), on the graph of y, h, the times and func's parameters.

    By Newton's method with the whole Jacobian, whose last two iterations are on the graph: there the Jacobian is a
    constant and the stages solve their equations, so that first and second derivatives are those of the implicit
    function.
    """
    shape = (len(A), *y.shape)
    size = shape[0] * y.numel()

    def values(at, start, step, ks):
        """Return func at the stages, in the state's precision whatever func's is."""
        states = [start + step * sum(float(a) * k for a, k in zip(row, ks, strict=True)) for row in A]
        return torch.stack([func(time, state).to(y.dtype) for time, state in zip(at, states, strict=True)])

    def corrected(M, residual, ks):
        return ks + torch.linalg.solve(M, residual.reshape(size)).reshape(shape)

    with torch.no_grad():
        at, ks, M = [time.detach() for time in times], torch.zeros(shape, dtype=y.dtype), torch.eye(size, dtype=y.dtype)
        for _ in range(50):
            J = torch.autograd.functional.jacobian(lambda x: values(at, y, h, x), ks)
            M = torch.eye(size, dtype=y.dtype) - J.reshape(size, size)
            before, ks = ks, corrected(M, values(at, y, h, ks) - ks, ks)
            if (ks - before).abs().max() <= 1e-15 * ks.abs().max():
                break
    for _ in range(2):
        ks = corrected(M, values(times, y, h, ks) - ks, ks)
    return list(ks)
