"""A spiral learned from short pieces of its trajectory, as in torchdiffeq's demonstration and in PNODE.

y' = A y^3 with A = (-0.1, 2; -2, -0.1) from (2, 0), at 1,000 points on [0, 25]; a network of 50 hidden units on y^3;
RMSprop at 1e-3; mean absolute error over pieces of 10 points.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from symplectic_adjoint import odeint
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import Task, TaskFamily

PIECE = 10
"""The number of points of a piece, including its start."""


class TrueSpiral(nn.Module):
    """The field that makes the data, y' = A y^3."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return y**3 @ y.new_tensor([[-0.1, 2.0], [-2.0, -0.1]])


class SpiralField(nn.Module):
    """A network with one hidden layer of `width` units on y^3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))
        for layer in (self.layers[0], self.layers[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.layers(y**3)


class Spiral(Task):
    """The loss is the mean absolute error over pieces of the spiral."""

    spiral: Tensor

    def __init__(self, field: SpiralField, t: Tensor, spiral: Tensor, batch: int, seed: int) -> None:
        super().__init__(batch, seed)
        self.field, self.t = field, t
        self.register_buffer("spiral", spiral, persistent=False)  # (points, 2)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(self.parameters(), lr=1e-3)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        starts = torch.from_numpy(self.batch_indices(len(self.spiral) - PIECE, iteration))
        target = torch.stack([self.spiral[starts + i] for i in range(PIECE)])
        return (integrate(self.field, target[0], self.t[:PIECE]) - target).abs().mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """Return error, the mean absolute error over the whole spiral, solved from its start."""
        whole = integrate(self.field, self.spiral[:1], self.t)[:, 0]
        return {"error": float((whole - self.spiral).abs().mean())}


def draw(batch: int, seed: int, cache_dir: Path, *, points: int = 1000, width: int = 50) -> Spiral:
    """Draw the task's model and data."""
    del cache_dir
    t = torch.linspace(0.0, 25.0, points, dtype=torch.float64)
    start = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        spiral = odeint(TrueSpiral(), start, t, method="dop853", rtol=1e-12, atol=1e-12)
    assert isinstance(spiral, Tensor)
    return Spiral(SpiralField(width), t, spiral[:, 0], batch, seed)


SPIRAL = TaskFamily("spiral", draw)
