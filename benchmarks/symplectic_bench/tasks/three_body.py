"""The masses of three bodies from their ways, as ACA's authors did.

Zhuang et al., Adaptive Checkpoint Adjoint Method, ICML 2020: masses 1.1, 1.1 and 0.9, 1,000 points on [0, 1], Adam at
0.1 with both of its means over two steps, a rate that falls by a twentieth at each, and earlier points weigh more.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from symplectic_adjoint import odeint
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.problems import PROBLEMS
from symplectic_bench.problems.three_body import ThreeBodyField
from symplectic_bench.tasks.task import Task, TaskFamily

TRUE = 1e-12
"""The tolerance of the data."""

START = 0.5
"""Every mass before anything is learned."""

BEYOND = 2.0
"""How far the ways are followed for the metric `far_error`, where what is trained on ends at 1."""


class ThreeBody(Task):
    """The weighted mean square of what the ways are off."""

    y0: Tensor
    ways: Tensor
    far: Tensor

    def __init__(self, field: ThreeBodyField, y0: Tensor, t: Tensor, ways: Tensor, far: Tensor, seed: int) -> None:
        super().__init__(len(y0), seed)
        self.field, self.t = field, t
        self.true_masses = field.masses.detach().clone()
        self.register_buffer("y0", y0, persistent=False)
        self.register_buffer("ways", ways, persistent=False)
        self.register_buffer("far", far, persistent=False)
        with torch.no_grad():
            field.masses.fill_(START)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1, betas=(0.5, 0.5))

    def rate(self, iteration: int) -> float:
        return 0.95**iteration

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        del iteration
        off = integrate(self.field, self.y0, self.t) - self.ways
        weights = (math.log(1e-2) * self.t).exp().to(off)
        return (off.square().mean(dim=(1, 2)) * weights).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """mass_error: the largest; far_error: the mean square of what the ways are off at time BEYOND."""
        end = integrate(self.field, self.y0, torch.tensor([0.0, BEYOND], dtype=torch.float64))[-1]
        masses = self.field.masses.detach().cpu().double()
        return {
            "mass_error": float((masses - self.true_masses).abs().max()),
            "far_error": float((end - self.far).square().mean()),
        }


def draw(batch: int, seed: int, cache_dir: Path, *, points: int = 1000) -> ThreeBody:
    del cache_dir
    problem = PROBLEMS["three_body"].build({"end": 1.0, "outputs": 1}, batch, "float64", seed=seed)
    assert isinstance(problem.func, ThreeBodyField)
    t = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    with torch.no_grad():
        start = problem.y0.detach()
        ways = odeint(problem.func, start, t, method="dop853", rtol=TRUE, atol=TRUE)
        far = odeint(problem.func, start, torch.tensor([0.0, BEYOND]).double(), method="dop853", rtol=TRUE, atol=TRUE)
    assert isinstance(ways, Tensor) and isinstance(far, Tensor)
    return ThreeBody(problem.func, start, t, ways, far[-1], seed)


THREE_BODY = TaskFamily("three_body", draw)
