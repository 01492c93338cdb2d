"""Robertson's stiff reaction learned by a network, as in PNODE.

Zhang and Zhao, PNODE, arXiv:2206.01298: 40 points from 1e-5 to 100, logarithmically spaced, hidden layers with GELU,
AdamW at 5e-3, mean absolute error. They solve it by the Crank-Nicolson rule. Each concentration is scaled to [0, 1],
and the field acts on the scaled ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symplectic_bench.files.arrays import load_arrays, save_arrays
from symplectic_bench.models.integrate import Integrate
from symplectic_bench.tasks.task import Task, TaskFamily

POINTS, BEGIN, END = 40, 1e-5, 100.0
"""The number of times in the data, the first and the last."""


class RobertsonField(nn.Module):
    """A perceptron of `layers` hidden layers of `width` units on the three scaled concentrations."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        hidden = [nn.Linear(3 if i == 0 else width, width) for i in range(layers)]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, nn.GELU())), nn.Linear(width, 3))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.layers(y)


class Robertson(Task):
    """The loss is the mean absolute error of the scaled concentrations, and so is the metric."""

    target: Tensor

    def __init__(self, field: RobertsonField, t: Tensor, target: Tensor, seed: int) -> None:
        super().__init__(batch=1, seed=seed)
        self.field, self.t = field, t
        self.register_buffer("target", target, persistent=False)  # (points, 3), scaled

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        del iteration
        return (self._solved(integrate) - self.target).abs().mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """Return error, which is the loss: there are no other data."""
        return {"error": float((self._solved(integrate) - self.target).abs().mean())}

    def _solved(self, integrate: Integrate) -> Tensor:
        return integrate(self.field, self.target[:1], self.t)[:, 0]


def draw(batch: int, seed: int, cache_dir: Path, *, width: int = 5, layers: int = 4, end: float = END) -> Robertson:
    """Draw the task's model, and keep the data up to `end`. Raise ValueError unless batch is 1."""
    if batch != 1:
        raise ValueError(f"robertson has a single trajectory, so batch must be 1; got {batch}")
    arrays = load_arrays(_file(cache_dir))
    t, y = torch.from_numpy(arrays["t"]), torch.from_numpy(arrays["y"])
    kept = t <= end * (1 + 1e-9)
    least, most = y.min(dim=0).values, y.max(dim=0).values
    return Robertson(RobertsonField(width, layers), t[kept], ((y - least) / (most - least))[kept], seed)


def prepare(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    """Solve the reaction with SciPy's BDF at rtol 1e-11 and cache it."""
    del sizes, data_dir
    if _file(cache_dir).exists():
        return
    from scipy.integrate import solve_ivp  # Imported here because only filling the cache needs it.

    def f(t: float, y: np.ndarray) -> list[float]:
        del t
        slow, fast, back = 0.04 * y[0], 3e7 * y[1] ** 2, 1e4 * y[1] * y[2]
        return [back - slow, slow - back - fast, fast]

    t = np.geomspace(BEGIN, END, POINTS)
    solved = solve_ivp(f, (0.0, END), [1.0, 0.0, 0.0], method="BDF", t_eval=t, rtol=1e-11, atol=1e-14)
    save_arrays(_file(cache_dir), t=t, y=solved.y.T)


def _file(cache_dir: Path) -> Path:
    return cache_dir / "robertson.npz"


ROBERTSON = TaskFamily("robertson", draw, prepare=prepare)
