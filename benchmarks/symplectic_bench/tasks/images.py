"""The density of images by a flow over several scales, as Table 2 has it for MNIST.

Grathwohl et al., FFJORD, ICLR 2019: convolutions with the time as a channel, Rademacher noise, Adam at 1e-3.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.datasets import LEVELS, image_size
from symplectic_bench.models.flow import ImageFlow, Noise, bits_per_dim, logits
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import RowsTask, TaskFamily, dataset


class ImageDensity(RowsTask):
    """Bits for each pixel: the mean over a batch is the loss, that over test images the metric."""

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
    flow = {"scales": scales, "blocks": blocks, "width": width, "layers": layers}
    return ImageDensity(data, cache_dir, test_rows, batch, seed, **flow)


IMAGES = TaskFamily("images", draw, prepare=dataset)
