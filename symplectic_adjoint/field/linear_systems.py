"""Linear systems with the matrix I - hg J of an implicit stage: factored, or solved by products alone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from symplectic_adjoint.field.matrix_products import addmv, bmm, mv

Product = Callable[[Tensor], Tensor]
"""x -> A x, for x like a state."""

FEW_ROWS = 8
"""Room for so many vectors of a Krylov space is made at first, and then for all that it may have."""


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
        return bmm(matrices, r.reshape(matrices.shape[0], -1, 1)).view(r.shape)


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
    basis, images = _Rows(rhs / size, most), list[Tensor]()
    H = torch.zeros(most + 1, most, dtype=torch.float64, device="cpu")
    target = torch.zeros(most + 1, dtype=torch.float64, device="cpu")
    target[0] = size
    for m in range(most):
        v = basis.known[m].view(rhs.shape)
        if precondition is not None:
            images.append(v := precondition(v))
        v = product(v)
        image, v = torch.linalg.vector_norm(v).item(), v.reshape(-1)
        for _ in range(2):  # Gram-Schmidt twice is as good as orthogonal
            parts = mv(basis.known, v)
            v = addmv(v, basis.known.mT, parts, alpha=-1)
            H[: m + 1, m] += parts.double().cpu()
        H[m + 1, m] = length = torch.linalg.vector_norm(v).item()
        if not math.isfinite(length):
            return v.view(rhs.shape)
        coefficients = torch.linalg.lstsq(H[: m + 2, : m + 1], target[: m + 2, None]).solution[:, 0]
        left = torch.linalg.vector_norm(H[: m + 2, : m + 1] @ coefficients - target[: m + 2]).item()
        if left <= tolerance * size or length <= 1e-14 * image or m == most - 1:
            if left > 0.5 * size:
                return torch.full_like(rhs, math.nan)
            weights = coefficients.to(rhs.dtype).to(rhs.device)
            rows = basis.known if precondition is None else torch.stack(images).view(m + 1, -1)
            return mv(rows.mT, weights).view(rhs.shape)
        basis.add(v / length)
    raise AssertionError("unreachable: the last pass returns")


class _Rows:
    """A matrix that grows by rows, up to `most`."""

    def __init__(self, first: Tensor, most: int):
        self._most, self._count = most, 0
        self._rows = first.new_empty(min(FEW_ROWS, most), first.numel())
        self.add(first.flatten())

    @property
    def known(self) -> Tensor:
        return self._rows[: self._count]

    def add(self, row: Tensor) -> None:
        if self._count == len(self._rows):
            larger = row.new_empty(self._most, len(row))
            larger[: self._count] = self._rows
            self._rows = larger
        self._rows[self._count] = row
        self._count += 1
