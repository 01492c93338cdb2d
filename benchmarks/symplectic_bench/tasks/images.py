"""Density estimation of images by a multi-scale flow, as in Table 2 for MNIST.

Grathwohl et al., FFJORD, ICLR 2019: convolutions with the time as a channel, Rademacher noise, Adam at 1e-3.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.datasets import LEVELS, image_size
from symplectic_bench.models.flow import ImageFlow, Noise, bits_per_dim, logits
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import RowsTask, TaskFamily, prepare_dataset


class ImageDensity(RowsTask):
    """The loss is the mean number of bits per pixel of a batch; the metric is that of the test images."""

    def __init__(self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int, **flow: int) -> None:
        super().__init__(data, cache_dir, test_rows, batch, seed)
        self.flow = ImageFlow(1, image_size(self.train_rows), **flow)
        self.levels = LEVELS[data]

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        return self._bits(self.rows(iteration), integrate, self.generator(iteration)).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        generator, total = self.generator(-1), 0.0
        for rows in self.test_batches():
            total += float(self._bits(rows, integrate, generator).double().sum())
        return {"bits_per_dim": total / len(self.test_rows)}

    def _bits(self, rows: np.ndarray, integrate: Integrate, generator: torch.Generator) -> Tensor:
        """Return bits per pixel, (batch,). Noise one level wide turns integer pixels into continuous ones."""
        values = torch.from_numpy(np.array(rows[:, :-1])).double()
        pixels = (values + torch.rand(values.shape, generator=generator, dtype=torch.float64)) / self.levels
        x, stretch = (found.to(next(self.parameters())) for found in logits(pixels))
        log_density = self.flow.log_density(x, integrate, _rademacher(generator)) + stretch
        return bits_per_dim(log_density, x.shape[1], self.levels)


def _rademacher(generator: torch.Generator) -> Noise:
    return lambda z: (2 * torch.randint(2, z.shape, generator=generator) - 1).to(z)


def draw(
    batch: int,
    seed: int,
    cache_dir: Path,
    *,
    data: str = "digits",
    scales: int = 3,
    blocks: int = 2,
    width: int = 64,
    layers: int = 3,
    test_rows: int = 1000,
) -> ImageDensity:
    """Draw the task's model and data."""
    flow = {"scales": scales, "blocks": blocks, "width": width, "layers": layers}
    return ImageDensity(data, cache_dir, test_rows, batch, seed, **flow)


IMAGES = TaskFamily("images", draw, prepare=prepare_dataset)
