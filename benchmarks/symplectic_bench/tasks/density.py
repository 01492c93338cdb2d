"""Density estimation of a table by a continuous normalizing flow, as in Table 2.

Grathwohl et al., FFJORD, ICLR 2019: concatsquash layers, Gaussian noise for Hutchinson's trace estimator, Adam at 1e-3.
In their code weight decay has no effect and the end time is never trained, so both are omitted.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symplectic_bench.models.flow import Noise, exact_trace, tabular_flow
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import RowsTask, TaskFamily, prepare_dataset


class Density(RowsTask):
    """The loss is the mean negative log-likelihood of a batch, in nats; the metric is that of the test rows."""

    def __init__(
        self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int, exact_test: bool, **flow: Any
    ) -> None:
        super().__init__(data, cache_dir, test_rows, batch, seed)
        self.flow = tabular_flow(self.train_rows.shape[1], **flow)
        self.exact_test = exact_test

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        x = self.tensor(self.rows(iteration))
        return -self.flow.log_density(x, integrate, self._noise(iteration)).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        noise = exact_trace if self.exact_test else self._noise(-1)
        total = 0.0
        for rows in self.test_batches():
            total -= float(self.flow.log_density(self.tensor(rows), integrate, noise).double().sum())
        return {"nll" if self.exact_test else "nll_estimated": total / len(self.test_rows)}

    def _noise(self, iteration: int) -> Noise:
        generator = self.generator(iteration)
        return lambda z: torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z)


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
    """Draw the task's model and data. Raise ValueError for an unknown test_trace."""
    if test_trace not in ("exact", "estimated"):
        raise ValueError(f"test_trace must be exact or estimated; got {test_trace!r}")
    flow = {"components": components, "width": width, "layers": layers, "nonlinearity": nonlinearity}
    return Density(data, cache_dir, test_rows, batch, seed, exact_test=test_trace == "exact", **flow)


DENSITY = TaskFamily("density", draw, prepare=prepare_dataset)
