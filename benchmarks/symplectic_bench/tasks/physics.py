"""KdV and Cahn-Hilliard equations learned through their energy from time series, as in Table 4.

Data and network are those of Matsubara, Ishikawa and Yaguchi, Deep Energy-Based Modeling of Discrete-Time Physics,
NeurIPS 2020, trained with Adam at 1e-3. The model predicts the state `stride` steps later.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symplectic_bench.data.series import SYSTEMS, cache_series, load_series
from symplectic_bench.models.energy import Energy, EnergyField
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import Task, TaskFamily

FAR_STRIDES = 10
"""The number of successive strides predicted for the metric `far_error`."""

TEST_SERIES = 10
"""The number of series, the last tenth, held out for testing."""


class Physics(Task):
    """The loss is the squared error of the state one stride later, relative to that of predicting no change."""

    series: Tensor
    test_series: Tensor

    def __init__(
        self, field: EnergyField, series: Tensor, test: Tensor, stride: int, dt: float, batch: int, seed: int
    ) -> None:
        super().__init__(batch, seed)
        self.field, self.stride = field, stride
        self.register_buffer("series", series, persistent=False)  # (series, times, points), times one step apart
        self.register_buffer("test_series", test[:, ::stride], persistent=False)  # one stride apart
        self.t = torch.tensor([0.0, stride * dt], dtype=torch.float64)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        before, after = (part.flatten(0, 1) for part in (self.series[:, : -self.stride], self.series[:, self.stride :]))
        rows = torch.from_numpy(self.batch_indices(len(before), iteration)).to(before.device)
        u, target = before[rows], after[rows]
        return (integrate(self.field, u, self.t)[-1] - target).square().sum() / (u - target).square().sum()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """Return error, over all strides of the test series, and far_error, FAR_STRIDES after their start."""
        before, after = (part.flatten(0, 1) for part in (self.test_series[:, :-1], self.test_series[:, 1:]))
        near = integrate(self.field, before, self.t)[-1]
        far = u = self.test_series[:, 0]
        for _ in range(FAR_STRIDES):
            far = integrate(self.field, far, self.t)[-1]
        return {
            "error": _relative(near, after, before),
            "far_error": _relative(far, self.test_series[:, FAR_STRIDES], u),
        }


def _relative(found: Tensor, target: Tensor, before: Tensor) -> float:
    return float((found - target).square().sum() / (before - target).square().sum())


def draw(
    batch: int,
    seed: int,
    cache_dir: Path,
    *,
    equation: str = "kdv",
    series: int = 90,
    width: int = 200,
    stride: int = 50,
) -> Physics:
    """Draw the task's model and data. Raise ValueError for a `series` or `stride` that the data do not allow."""
    system = SYSTEMS[equation]
    whole = load_series(equation, cache_dir)
    if not 1 <= series <= len(whole) - TEST_SERIES:
        raise ValueError(f"series must be 1 to {len(whole) - TEST_SERIES} (the others are for testing); got {series}")
    if not 1 <= FAR_STRIDES * stride < whole.shape[1]:
        raise ValueError(f"{FAR_STRIDES} strides must fit into {whole.shape[1] - 1} steps; got stride={stride}")
    field = EnergyField(Energy(width), equation, system.width / whole.shape[2])
    return Physics(field, whole[:series], whole[-TEST_SERIES:], stride, system.dt, batch, seed)


def prepare(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """Cache the time series of the equation."""
    del data_dir
    cache_series(sizes["equation"], cache_dir)


PHYSICS = TaskFamily("physics", draw, prepare=prepare)
