"""Linear systems with the matrix I - hg J of an implicit stage: factored, or solved by products alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""x -> A x, for x like a state."""


class Factors:
    """The inverse of I - hg J for Jacobians J of shape (blocks, n, n), one block for each sample or one for all.

    An explicit inverse is enough where every result is corrected, as Newton's and the transposed equations are: its
    rounding only slows their convergence. For the many small blocks of a batch it is faster than LU factors.
    """

    def __init__(self, jacobian: Tensor, hg: float):
        self.hg = hg
        identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
        self._inverse = torch.linalg.inv_ex(torch.sub(identity, jacobian, alpha=hg))[0]
        self._transposed = self._inverse.mT

    def solve(self, r: Tensor) -> Tensor:
        """Return (I - hg J)^-1 r, not finite if the matrix is singular."""
        return self._times(self._inverse, r)

    def solve_transposed(self, r: Tensor) -> Tensor:
        """Return (I - hg J)^-T r, not finite if the matrix is singular."""
        return self._times(self._transposed, r)

    @staticmethod
    def _times(matrices: Tensor, r: Tensor) -> Tensor:
        return torch.bmm(matrices, r.reshape(matrices.shape[0], -1, 1)).view(r.shape)


def gmres(
    product: Product, rhs: Tensor, *, tolerance: float, precondition: Product | None = None, restart: int = 40
) -> Tensor:
    """Return x with |A x - rhs| at most `tolerance` |rhs| where `restart` products reach that, else the nearest x.

    One that leaves more than half of rhs is not finite, as from a singular matrix: it might be 0, which would pass for
    the solution.

    Saad and Schultz, GMRES, SIAM J. Sci. Stat. Comput. 7 (1986) 856-869, preconditioned from the right. product: A x.
    precondition: an approximation of A^-1 x.
    """
    size = torch.linalg.vector_norm(rhs).item()
    if size == 0.0 or not math.isfinite(size):
        return rhs.clone()
    most = min(restart, rhs.numel())
    basis, images = [rhs / size], list[Tensor]()
    H = torch.zeros(most + 1, most, dtype=torch.float64)
    target = torch.zeros(most + 1, dtype=torch.float64)
    target[0] = size
    for m in range(most):
        images.append(basis[m] if precondition is None else precondition(basis[m]))
        v = product(images[m])
        image = torch.linalg.vector_norm(v).item()
        for _ in range(2):  # Gram-Schmidt twice is as good as orthogonal
            known = torch.stack([x.flatten() for x in basis])
            parts = known @ v.flatten()
            v = v - (parts @ known).view(v.shape)
            H[: m + 1, m] += parts.double().cpu()
        H[m + 1, m] = length = torch.linalg.vector_norm(v).item()
        if not math.isfinite(length):
            return v
        coefficients = torch.linalg.lstsq(H[: m + 2, : m + 1], target[: m + 2, None]).solution[:, 0]
        left = torch.linalg.vector_norm(H[: m + 2, : m + 1] @ coefficients - target[: m + 2]).item()
        if left <= tolerance * size or length <= 1e-14 * image or m == most - 1:
            if left > 0.5 * size:
                return torch.full_like(rhs, math.nan)
            weights = coefficients.to(rhs.dtype).to(rhs.device)
            return torch.einsum("m,m...->...", weights, torch.stack(images))
        basis.append(v / length)
    raise AssertionError("unreachable: the last pass returns")
