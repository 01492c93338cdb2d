"""The checkpoint of a training run between two turns. Loading it runs no code from the file."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from symplectic_bench.files.atomic import replacing
from symplectic_bench.tasks import Task


@dataclass
class Log:
    """The measurements of a training run, one value per iteration.

    starts are the first iterations of each process; memory holds the results of measure_memory, once it has run.
    """

    losses: list[float] = field(default_factory=list)
    forward_s: list[float] = field(default_factory=list)
    backward_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    counts: list[dict[str, int | None]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    peak_rss_bytes: int = 0
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """The number of iterations done."""
        return len(self.losses)


def save(file: Path, task: Task, optimizer: torch.optim.Optimizer, log: Log) -> None:
    """Write the checkpoint atomically: if the process is killed meanwhile, the file is unchanged."""
    with replacing(file) as part, part.open("wb") as stream:
        torch.save({"task": task.state_dict(), "optimizer": optimizer.state_dict(), "log": asdict(log)}, stream)
        stream.flush()
        os.fsync(stream.fileno())


def load(file: Path, task: Task, optimizer: torch.optim.Optimizer | None = None) -> Log:
    """Restore the task and the optimizer, and return the log. Without a file the run is at its start."""
    if not file.exists():
        return Log()
    found: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    task.load_state_dict(found["task"])
    if optimizer is not None:
        optimizer.load_state_dict(found["optimizer"])
    return Log(**found["log"])
