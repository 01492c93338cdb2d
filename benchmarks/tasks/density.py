"""The density of a table by a continuous normalizing flow, as Table 2 has it.

Grathwohl et al., FFJORD, ICLR 2019: concatsquash layers, Gaussian noise for Hutchinson's trace, Adam at 1e-3. Its
weight decay did nothing and its end time was never trained, so neither is here.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets import load_split
from benchmarks.models.flow import Flow, Noise, exact, forget_noise, tabular_flow
from benchmarks.models.integrate import Integrate
from benchmarks.tasks.task import Task, TaskFamily, dataset, spread


class Density(Task):
    """Minus the log-likelihood of rows, in nats: its mean over a batch is the loss, that over test rows the metric."""

    def __init__(
        self, flow: Flow, train: np.ndarray, test: np.ndarray, batch: int, seed: int, exact_test: bool
    ) -> None:
        super().__init__(batch, seed)
        self.flow, self.train_rows, self.test_rows, self.exact_test = flow, train, test, exact_test

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def forget(self) -> None:
        super().forget()
        forget_noise(self.flow)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        x = self._tensor(self.train_rows[self.chosen(len(self.train_rows), iteration)])
        return -self.flow.log_density(x, integrate, self._noise(iteration)).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        noise = exact if self.exact_test else self._noise(-1)
        total = 0.0
        for first in range(0, len(self.test_rows), self.batch):
            x = self._tensor(self.test_rows[first : first + self.batch])
            total -= float(self.flow.log_density(x, integrate, noise).double().sum())
        return {"nll" if self.exact_test else "nll_estimated": total / len(self.test_rows)}

    def _noise(self, iteration: int) -> Noise:
        generator = self.generator(iteration)
        return lambda z: torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)

    def _tensor(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(rows)).to(next(self.parameters()))


def draw(
    batch: int,
    seed: int,
    cache_dir: Path,
    *,
    data: str = "synthetic-miniboone",
    components: int = 1,
    width: int = 860,
    layers: int = 2,
    nonlinearity: str = "softplus",
    test_rows: int = 1000,
    test_trace: str = "exact",
) -> Density:
    if test_trace not in ("exact", "estimated"):
        raise ValueError(f"test_trace must be exact or estimated; got {test_trace!r}")
    train, test = (load_split(data, split, cache_dir) for split in ("train", "test"))
    flow = tabular_flow(train.shape[1], components, width, layers, nonlinearity)
    return Density(flow, train, spread(test, test_rows), batch, seed, exact_test=test_trace == "exact")


DENSITY = TaskFamily("density", draw, prepare=dataset)
