"""Many dense outputs of a step together, in a few operations on all of them.

y(sigma_m) = y + h sum_i b_i(sigma_m) k_i, and the transpose of this sum, V_i = sum_m b_i(sigma_m) mu_m.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from symplectic_adjoint.field.few_launches import launches_count
from symplectic_adjoint.field.transforms import batched, transforming
from symplectic_adjoint.methods.interpolant import Interpolant

MOST_AT_ONCE = 64
"""For more than these, the operators' own work takes longer than the calls of them that would be spared."""

MOST_BYTES = 256 * 2**10
"""Bytes of the outputs that are formed at once: each stage reads and writes all of them, so they stay in a cache."""

FEWEST_AT_ONCE = 4
"""Fewer are formed faster one by one."""

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
"""The dtypes of such outputs: in half precision the weights would be rounded too coarsely."""


def most_at_once(y: Tensor) -> int:
    """Return how many outputs like y are formed at once: 1 if they must be formed one by one, or faster are."""
    at_hand = y.device.type == "cpu" or launches_count(y.device)
    plain = type(y) is Tensor and y.layout is torch.strided and not (transforming() or batched(y))
    if not plain or y.dtype not in DTYPES or not at_hand:
        return 1
    count = min(MOST_AT_ONCE, MOST_BYTES // max(1, y.nbytes))
    return count if count >= FEWEST_AT_ONCE else 1


def outputs_together(
    y: Tensor,
    h: float,
    interpolant: Interpolant,
    sigmas: Sequence[float],
    ks: Sequence[Tensor],
    into: Tensor | None = None,
) -> Tensor:
    """Return y(sigma) at each sigma, of shape (sigmas, *y.shape): `into`, which is overwritten, or a new tensor."""
    weights = _columns(output_weights(interpolant, sigmas).mul_(h), y)
    total = y.new_zeros((len(sigmas), *y.shape)) if into is None else into.zero_()
    for column, i in zip(weights, interpolant.used_rows, strict=True):
        total.addcmul_(column, ks[i])  # which saves no stage for the graph
    return total.add_(y)


def transpose_outputs(interpolant: Interpolant, sigmas: Sequence[float], mus: Tensor) -> Iterator[Tensor]:
    """Yield V_i for each of the interpolant's used rows, from the cotangents mu of the outputs, then the sum of all mu.

    Only one is made at a time: together they may be more states than the step holds.
    """
    for column in _columns(output_weights(interpolant, sigmas), mus[0]):
        yield (column * mus).sum(0)
    yield mus.sum(0)


def output_weights(interpolant: Interpolant, sigmas: Sequence[float]) -> Tensor:
    """Return b_i(sigma) of the used rows at each sigma: float64 on the CPU, of shape (used rows, sigmas)."""
    x = torch.tensor(sigmas, dtype=torch.float64, device="cpu")
    start, end = torch.tensor(interpolant.by_power, dtype=torch.float64, device="cpu").unsqueeze(-1)
    near_end = x > 0.5
    x = torch.where(near_end, x - 1.0, x)
    value = torch.zeros_like(x)
    for coefficients in torch.where(near_end, end, start):
        value = value * x + coefficients
    return value


def _columns(weights: Tensor, y: Tensor) -> Tensor:
    """Return weights of shape (rows, sigmas) so that each row's multiply outputs like y, stacked."""
    host = weights.to(y.dtype).view(*weights.shape, *[1] * y.dim())
    if y.device.type == "cpu":
        return host
    return host.pin_memory().to(y.device, non_blocking=True)
