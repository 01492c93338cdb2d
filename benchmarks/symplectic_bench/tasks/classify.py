"""Image classification with an ODE block, as in ACA.

Zhuang et al., Adaptive Checkpoint Adjoint Method, ICML 2020: stochastic gradient descent with learning rate 0.1,
momentum 0.9 and weight decay 5e-4.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symplectic_bench.data.datasets import LEVELS, image_size
from symplectic_bench.models.classifier import Classifier
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import RowsTask, TaskFamily, prepare_dataset


class Classify(RowsTask):
    """The loss is the cross-entropy; the metric is the accuracy on test images."""

    def __init__(self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int, channels: int) -> None:
        super().__init__(data, cache_dir, test_rows, batch, seed)
        self.model = Classifier(channels, classes=10)
        self.size, self.levels = image_size(self.train_rows), LEVELS[data]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        images, labels = self._images_and_labels(self.rows(iteration))
        return torch.nn.functional.cross_entropy(self.model(images, integrate), labels)

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        correct = 0
        for rows in self.test_batches():
            images, labels = self._images_and_labels(rows)
            correct += int((self.model(images, integrate).argmax(dim=1) == labels).sum())
        return {"accuracy": correct / len(self.test_rows)}

    def _images_and_labels(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return images with pixels in [0, 1], (batch, 1, size, size), and their labels, (batch,)."""
        table = self.tensor(rows)
        return table[:, :-1].unflatten(1, (1, self.size, self.size)) / self.levels, table[:, -1].long()


def draw(
    batch: int, seed: int, cache_dir: Path, *, data: str = "digits", channels: int = 32, test_rows: int = 10_000
) -> Classify:
    """Draw the task's model and data."""
    return Classify(data, cache_dir, test_rows, batch, seed, channels)


CLASSIFY = TaskFamily("classify", draw, prepare=prepare_dataset)
