"""Images told apart by a classifier with an ODE block, as ACA's authors did.

Zhuang et al., Adaptive Checkpoint Adjoint Method, ICML 2020: stochastic gradient descent at 0.1, momentum 0.9, weight
decay 5e-4.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.datasets import LEVELS, load_split
from benchmarks.models.classifier import Classifier
from benchmarks.models.integrate import Integrate
from benchmarks.tasks.task import Task, TaskFamily, dataset, spread


class Classify(Task):
    """Cross-entropy is the loss, the share of test images named right the metric."""

    def __init__(
        self, model: Classifier, train: np.ndarray, test: np.ndarray, levels: int, batch: int, seed: int
    ) -> None:
        super().__init__(batch, seed)
        self.model, self.train_rows, self.test_rows, self.levels = model, train, test, levels

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        images, labels = self._tensors(self.train_rows[self.chosen(len(self.train_rows), iteration)])
        return torch.nn.functional.cross_entropy(self.model(images, integrate), labels)

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        right = 0
        for first in range(0, len(self.test_rows), self.batch):
            images, labels = self._tensors(self.test_rows[first : first + self.batch])
            right += int((self.model(images, integrate).argmax(dim=1) == labels).sum())
        return {"accuracy": right / len(self.test_rows)}

    def _tensors(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        table = torch.from_numpy(np.array(rows)).to(next(self.parameters()))
        size = round((table.shape[1] - 1) ** 0.5)
        return table[:, :-1].unflatten(1, (1, size, size)) / self.levels, table[:, -1].long()


def draw(
    batch: int, seed: int, cache_dir: Path, *, data: str = "digits", channels: int = 32, test_rows: int = 10_000
) -> Classify:
    train, test = (load_split(data, split, cache_dir) for split in ("train", "test"))
    return Classify(Classifier(channels, classes=10), train, spread(test, test_rows), LEVELS[data], batch, seed)


CLASSIFY = TaskFamily("classify", draw, prepare=dataset)
