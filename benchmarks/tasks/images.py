"""The density of images by a flow over several scales, as Table 2 has it for MNIST.

Grathwohl et al., FFJORD, ICLR 2019: convolutions with the time as a channel, Rademacher noise, Adam at 1e-3.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets import LEVELS, load_split
from benchmarks.models.flow import ImageFlow, Noise, bits_per_dim, forget_noise, logits
from benchmarks.models.integrate import Integrate
from benchmarks.tasks.task import Task, TaskFamily, dataset, spread


class ImageDensity(Task):
    """Bits for each pixel: the mean over a batch is the loss, that over test images the metric."""

    def __init__(
        self, flow: ImageFlow, train: np.ndarray, test: np.ndarray, levels: int, batch: int, seed: int
    ) -> None:
        super().__init__(batch, seed)
        self.flow, self.train_rows, self.test_rows, self.levels = flow, train, test, levels

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def forget(self) -> None:
        super().forget()
        forget_noise(self.flow)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        rows = self.train_rows[self.chosen(len(self.train_rows), iteration)]
        return self._bits(rows, integrate, self.generator(iteration)).mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        generator, total = self.generator(-1), 0.0
        for first in range(0, len(self.test_rows), self.batch):
            total += float(self._bits(self.test_rows[first : first + self.batch], integrate, generator).double().sum())
        return {"bits_per_dim": total / len(self.test_rows)}

    def _bits(self, rows: np.ndarray, integrate: Integrate, generator: torch.Generator) -> Tensor:
        """Whole values get noise of one level, so that there is a density; it is the iteration's own."""
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
    train, test = (load_split(data, split, cache_dir) for split in ("train", "test"))
    size = round((train.shape[1] - 1) ** 0.5)
    flow = ImageFlow(1, size, scales, blocks, width, layers)
    return ImageDensity(flow, train, spread(test, test_rows), LEVELS[data], batch, seed)


IMAGES = TaskFamily("images", draw, prepare=dataset)
