"""Images told apart by a classifier with an ODE block, as ACA's authors did.

Zhuang et al., Adaptive Checkpoint Adjoint Method, ICML 2020: stochastic gradient descent at 0.1, momentum 0.9, weight
decay 5e-4.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.datasets import LEVELS, image_size
from symplectic_bench.models.classifier import Classifier
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import RowsTask, TaskFamily, dataset


class Classify(RowsTask):
    """Cross-entropy is the loss, the share of test images named right the metric."""

    def __init__(self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int, channels: int) -> None:
        super().__init__(data, cache_dir, test_rows, batch, seed)
        self.model = Classifier(channels, classes=10)
        self.size, self.levels = image_size(self.train_rows), LEVELS[data]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        images, labels = self._parted(self.rows(iteration))
        return torch.nn.functional.cross_entropy(self.model(images, integrate), labels)

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        right = 0
        for rows in self.test_batches():
            images, labels = self._parted(rows)
            right += int((self.model(images, integrate).argmax(dim=1) == labels).sum())
        return {"accuracy": right / len(self.test_rows)}

    def _parted(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images with pixels in [0, 1], and what they show."""
        table = self.tensor(rows)
        return table[:, :-1].unflatten(1, (1, self.size, self.size)) / self.levels, table[:, -1].long()


def draw(
    batch: int, seed: int, cache_dir: Path, *, data: str = "digits", channels: int = 32, test_rows: int = 10_000
) -> Classify:
    return Classify(data, cache_dir, test_rows, batch, seed, channels)


CLASSIFY = TaskFamily("classify", draw, prepare=dataset)
