"""A field given by a learned energy: u_t = S grad H(u), with H a network and S known.

Greydanus, Dzamba and Yosinski, Hamiltonian Neural Networks, NeurIPS 2019, for S skew-symmetric; Matsubara, Ishikawa and
Yaguchi, Deep Energy-Based Modeling of Discrete-Time Physics, NeurIPS 2020, for partial differential equations and for
dissipative S. The network is that of the latter.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from symplectic_bench.problems.periodic import first_difference, second_difference

STRUCTURES: dict[str, Callable[[Tensor, float], Tensor]] = {"kdv": first_difference, "cahn_hilliard": second_difference}
"""S of each equation: the first difference conserves the energy, the second one dissipates it."""


class Energy(nn.Module):
    """The energy H(u), (batch,), of u on a periodic interval, (batch, points): a sum over neighbouring points."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(1, width, kernel_size=3, padding=1, padding_mode="circular")
        self.inner = nn.Conv1d(width, width, kernel_size=1)
        self.outer = nn.Conv1d(width, 1, kernel_size=1, bias=False)
        for layer in (self.near, self.inner, self.outer):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, u: Tensor) -> Tensor:
        hidden = torch.tanh(self.near(u[:, None]))
        return self.outer(torch.tanh(self.inner(hidden))).sum(dim=(1, 2))


class EnergyField(nn.Module):
    """u_t = S grad H(u) with S one of STRUCTURES and points dx apart. It conserves the sum of u for any H."""

    def __init__(self, energy: nn.Module, structure: str, dx: float) -> None:
        super().__init__()
        if structure not in STRUCTURES:
            raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}; got {structure!r}")
        self.energy, self.structure, self.dx = energy, structure, dx

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        del t
        differentiable = torch.is_grad_enabled()
        # The field is itself a derivative, so it needs a graph of H under no_grad too.
        with torch.enable_grad():
            at = u if differentiable and u.requires_grad else u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(at).sum(), at, create_graph=differentiable)
        change = STRUCTURES[self.structure](slope, self.dx)
        return change if differentiable else change.detach()
