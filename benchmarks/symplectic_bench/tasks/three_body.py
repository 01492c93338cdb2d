"""The masses of three bodies estimated from their trajectories, as in ACA.

Zhuang et al., Adaptive Checkpoint Adjoint Method, ICML 2020: masses 1.1, 1.1 and 0.9, 1,000 points on [0, 1], Adam at
0.1 with both betas 0.5, the learning rate multiplied by 0.95 after every iteration, and larger weights for earlier
points.
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

DATA_TOLERANCE = 1e-12
"""rtol and atol of the solve that makes the data."""

INITIAL_MASS = 0.5
"""The initial guess of every mass."""

FAR_TIME = 2.0
"""The time at which `far_error` is measured; the training data end at 1."""


class ThreeBody(Task):
    """The loss is the weighted mean square error of the trajectories."""

    y0: Tensor
    trajectories: Tensor
    far: Tensor

    def __init__(
        self, field: ThreeBodyField, y0: Tensor, t: Tensor, trajectories: Tensor, far: Tensor, seed: int
    ) -> None:
        super().__init__(len(y0), seed)
        self.field, self.t = field, t
        self.true_masses = field.masses.detach().clone()
        self.register_buffer("y0", y0, persistent=False)
        self.register_buffer("trajectories", trajectories, persistent=False)
        self.register_buffer("far", far, persistent=False)
        with torch.no_grad():
            field.masses.fill_(INITIAL_MASS)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1, betas=(0.5, 0.5))

    def learning_rate_factor(self, iteration: int) -> float:
        return 0.95**iteration

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        del iteration
        off = integrate(self.field, self.y0, self.t) - self.trajectories
        weights = (math.log(1e-2) * self.t).exp().to(off)
        return (off.square().mean(dim=(1, 2)) * weights).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """Return mass_error, the largest error of a mass, and far_error, the mean square error of y at FAR_TIME."""
        end = integrate(self.field, self.y0, torch.tensor([0.0, FAR_TIME], dtype=torch.float64))[-1]
        masses = self.field.masses.detach().cpu().double()
        return {
            "mass_error": float((masses - self.true_masses).abs().max()),
            "far_error": float((end - self.far).square().mean()),
        }


def draw(batch: int, seed: int, cache_dir: Path, *, points: int = 1000) -> ThreeBody:
    """Draw the task's model and data."""
    del cache_dir
    problem = PROBLEMS["three_body"].build({"end": 1.0, "outputs": 1}, batch, "float64", seed=seed)
    assert isinstance(problem.func, ThreeBodyField)
    t = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    with torch.no_grad():
        start = problem.y0.detach()
        trajectories, far = (
            odeint(problem.func, start, times, method="dop853", rtol=DATA_TOLERANCE, atol=DATA_TOLERANCE)
            for times in (t, torch.tensor([0.0, FAR_TIME], dtype=torch.float64))
        )
    assert isinstance(trajectories, Tensor) and isinstance(far, Tensor)
    return ThreeBody(problem.func, start, t, trajectories, far[-1], seed)


THREE_BODY = TaskFamily("three_body", draw)
