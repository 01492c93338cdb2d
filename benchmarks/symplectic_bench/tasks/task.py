"""A training task: a model with fields, its data in batches, a loss and metrics."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.data.datasets import cache_dataset, load_split
from symplectic_bench.models.flow import clear_noise
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.problems.problem import DTYPES
from symplectic_bench.spec.cell import ITERATIONS, Cell, Size


class Task(nn.Module, ABC):
    """A module whose parameters are trained and whose buffers are the data that fit in memory.

    loss and metrics solve the model's fields with `integrate`. The random numbers of an iteration depend only on its
    number and the seed, so training can be interrupted and resumed at any iteration.
    """

    def __init__(self, batch: int, seed: int) -> None:
        super().__init__()
        self.batch, self.seed = batch, seed

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the parameters: Adam at 1e-3 unless the task's authors use another."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    @abstractmethod
    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        """Return the scalar loss of the iteration's batch."""

    @abstractmethod
    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """Return the metrics on test data, by name. Called under no_grad."""

    def release_iteration(self) -> None:
        """Release the gradients and the noise that an iteration leaves behind."""
        self.zero_grad()
        clear_noise(self)

    def learning_rate_factor(self, iteration: int) -> float:
        """Return the factor on the optimizer's learning rate in this iteration."""
        del iteration
        return 1.0

    def generator(self, iteration: int) -> torch.Generator:
        """Return a generator of the iteration's random numbers."""
        return torch.Generator().manual_seed((1_000_003 * self.seed + iteration) % 2**63)

    def batch_indices(self, rows: int, iteration: int) -> np.ndarray:
        """Return the sorted indices of the iteration's batch among `rows` rows, reshuffled in every epoch."""
        batches = max(1, rows // self.batch)
        epoch, i = divmod(iteration, batches)
        return np.sort(_shuffled(rows, self.seed, epoch)[i * self.batch : (i + 1) * self.batch])


class RowsTask(Task):
    """A task on the rows of a data set, read from disk when used. It is tested on test_rows rows of the test split."""

    def __init__(self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int) -> None:
        super().__init__(batch, seed)
        self.train_rows, test = (load_split(data, split, cache_dir) for split in ("train", "test"))
        indices = np.linspace(0, len(test) - 1, min(test_rows, len(test)))  # evenly spaced: files are often sorted
        self.test_rows = test[indices.round().astype(int)]

    def rows(self, iteration: int) -> np.ndarray:
        """Return the iteration's batch of rows."""
        return self.train_rows[self.batch_indices(len(self.train_rows), iteration)]

    def test_batches(self) -> Iterator[np.ndarray]:
        """Yield the test rows in batches."""
        for first in range(0, len(self.test_rows), self.batch):
            yield self.test_rows[first : first + self.batch]

    def tensor(self, rows: np.ndarray) -> Tensor:
        """Return rows as a tensor in the dtype and on the device of the parameters."""
        return torch.from_numpy(np.array(rows)).to(next(self.parameters()))


@cache
def _shuffled(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def prepare_nothing(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """Do nothing, for a task that needs no files."""
    del sizes, cache_dir, data_dir


def prepare_dataset(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """Cache the data set named by the size `data`. Raise MissingData if it is unavailable."""
    cache_dataset(sizes["data"], cache_dir, data_dir)


@dataclass(frozen=True)
class TaskFamily:
    """Tasks of one kind. `draw(batch, seed, cache_dir, **sizes)` makes one, with weights from torch's global generator.

    The keyword-only arguments of draw are the sizes that a suite may give, with their defaults. prepare(sizes,
    cache_dir, data_dir) writes the files that draw reads into cache_dir; it may take a long time.
    """

    name: str
    draw: Callable[..., Task]
    prepare: Callable[[Mapping[str, Any], Path, Path | None], None] = prepare_nothing

    @property
    def sizes(self) -> dict[str, Size]:
        arguments = inspect.signature(self.draw).parameters.values()
        return {ITERATIONS: 20, **{a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}}

    def build(self, cell: Cell, cache_dir: Path) -> Task:
        """Return the cell's task in its dtype and on its device, the same for cells that differ only in contender."""
        sizes = {name: size for name, size in cell.sizes if name != ITERATIONS}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            task = self.draw(cell.batch, cell.seed, cache_dir, **sizes)
        return task.to(dtype=DTYPES[cell.dtype], device=cell.device)
