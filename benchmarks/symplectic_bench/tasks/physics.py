"""An equation learned through its energy from time series, as Table 4 has it: KdV and Cahn-Hilliard.

Matsubara, Ishikawa and Yaguchi, Deep Energy-Based Modeling of Discrete-Time Physics, NeurIPS 2020: data and network;
Adam at 1e-3. The network is asked for the state `stride` steps later.
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

FAR = 10
"""How many strides are predicted in a row for the metric `far_error`."""

TEST_SERIES = 10
"""A tenth of the series, the last ones, is not trained on."""


class Physics(Task):
    """The squared error of the state one stride later, as a multiple of what standing still would give."""

    series: Tensor
    test_series: Tensor

    def __init__(
        self, field: EnergyField, series: Tensor, test: Tensor, stride: int, dt: float, batch: int, seed: int
    ) -> None:
        super().__init__(batch, seed)
        self.field, self.stride = field, stride
        self.register_buffer("series", series, persistent=False)  # (series, moments, points), moments a step apart
        self.register_buffer("test_series", test[:, ::stride], persistent=False)  # a stride apart
        self.t = torch.tensor([0.0, stride * dt], dtype=torch.float64)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        before, after = (part.flatten(0, 1) for part in (self.series[:, : -self.stride], self.series[:, self.stride :]))
        rows = torch.from_numpy(self.chosen(len(before), iteration)).to(before.device)
        u, wanted = before[rows], after[rows]
        return (integrate(self.field, u, self.t)[-1] - wanted).square().sum() / (u - wanted).square().sum()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """error: of every stride of the test series, as the loss has it; far_error: of FAR strides from the start."""
        before, after = (part.flatten(0, 1) for part in (self.test_series[:, :-1], self.test_series[:, 1:]))
        near = integrate(self.field, before, self.t)[-1]
        far = u = self.test_series[:, 0]
        for _ in range(FAR):
            far = integrate(self.field, far, self.t)[-1]
        return {
            "error": _relative(near, after, before),
            "far_error": _relative(far, self.test_series[:, FAR], u),
        }


def _relative(found: Tensor, wanted: Tensor, before: Tensor) -> float:
    return float((found - wanted).square().sum() / (before - wanted).square().sum())


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
    system = SYSTEMS[equation]
    every = load_series(equation, cache_dir)
    if not 1 <= series <= len(every) - TEST_SERIES:
        raise ValueError(f"series must be 1 to {len(every) - TEST_SERIES}, the others are for testing; got {series}")
    if not 1 <= FAR * stride < every.shape[1]:
        raise ValueError(f"{FAR} strides must fit into {every.shape[1] - 1} steps; got stride={stride}")
    field = EnergyField(Energy(width), equation, system.width / every.shape[2])
    return Physics(field, every[:series], every[-TEST_SERIES:], stride, system.dt, batch, seed)


def prepare(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    del data_dir
    cache_series(sizes["equation"], cache_dir)


PHYSICS = TaskFamily("physics", draw, prepare=prepare)
