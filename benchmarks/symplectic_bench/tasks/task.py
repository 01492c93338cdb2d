"""What is trained: a network with fields in it, its data in batches, and how good it has become."""

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
from symplectic_bench.models.flow import forget_noise
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.problems.problem import DTYPES
from symplectic_bench.spec.cell import ITERATIONS, Cell, Size


class Task(nn.Module, ABC):
    """Its parameters are what is trained, its buffers the data that fit in memory.

    loss and metrics hand the network's fields to `integrate`. What is random in an iteration depends on the seed and
    the iteration alone, so that training may stop and go on anywhere.
    """

    def __init__(self, batch: int, seed: int) -> None:
        super().__init__()
        self.batch, self.seed = batch, seed

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam at 1e-3, where the task's authors had no other."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    @abstractmethod
    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        """A scalar, of the iteration's batch."""

    @abstractmethod
    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """How good it is on what it was not trained on. Called without gradients."""

    def forget(self) -> None:
        """Let go of what an iteration has left behind."""
        self.zero_grad()
        forget_noise(self)

    def rate(self, iteration: int) -> float:
        """The share of the optimizer's learning rate that the iteration has."""
        del iteration
        return 1.0

    def generator(self, iteration: int) -> torch.Generator:
        """The iteration's own random numbers."""
        return torch.Generator().manual_seed(1_000_003 * self.seed + iteration)

    def chosen(self, rows: int, iteration: int) -> np.ndarray:
        """The places of the iteration's batch among so many rows, sorted: every epoch has an order of its own."""
        batches = max(1, rows // self.batch)
        epoch, place = divmod(iteration, batches)
        return np.sort(_shuffled(rows, self.seed, epoch)[place * self.batch : (place + 1) * self.batch])


class RowsTask(Task):
    """One whose data are rows, read from the disk as they are used: test_rows of them are tested on, from all over."""

    def __init__(self, data: str, cache_dir: Path, test_rows: int, batch: int, seed: int) -> None:
        super().__init__(batch, seed)
        self.train_rows, test = (load_split(data, split, cache_dir) for split in ("train", "test"))
        places = np.linspace(0, len(test) - 1, min(test_rows, len(test)))  # files are often in some order
        self.test_rows = test[places.round().astype(int)]

    def rows(self, iteration: int) -> np.ndarray:
        """The iteration's batch."""
        return self.train_rows[self.chosen(len(self.train_rows), iteration)]

    def test_batches(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self.test_rows), self.batch):
            yield self.test_rows[first : first + self.batch]

    def tensor(self, rows: np.ndarray) -> Tensor:
        """In the dtype and on the device of the parameters."""
        return torch.from_numpy(np.array(rows)).to(next(self.parameters()))


@cache
def _shuffled(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def nothing(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """The preparation of a task that needs none."""
    del sizes, cache_dir, data_dir


def dataset(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """The preparation of a task whose size `data` names a data set."""
    cache_dataset(sizes["data"], cache_dir, data_dir)


@dataclass(frozen=True)
class TaskFamily:
    """Tasks of one kind. `draw(batch, seed, cache_dir, **sizes)` makes one; torch's random numbers are its weights.

    The keyword-only arguments of draw are the sizes that a suite may give, with their defaults. prepare(sizes,
    cache_dir, data_dir) writes into cache_dir what draw reads from there; it may take long.
    """

    name: str
    draw: Callable[..., Task]
    prepare: Callable[[Mapping[str, Any], Path, Path | None], None] = nothing

    @property
    def sizes(self) -> dict[str, Size]:
        arguments = inspect.signature(self.draw).parameters.values()
        return {ITERATIONS: 20, **{a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}}

    def build(self, cell: Cell, cache_dir: Path) -> Task:
        """In the cell's dtype on its device. Two cells that differ in contender alone have the same numbers."""
        sizes = {name: size for name, size in cell.sizes if name != ITERATIONS}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            task = self.draw(cell.batch, cell.seed, cache_dir, **sizes)
        return task.to(dtype=DTYPES[cell.dtype], device=cell.device)
