"""Robertson's stiff reaction learned by a network, as PNODE's authors did, but with an explicit method.

Zhang and Zhao, PNODE, arXiv:2206.01298: 40 points from 1e-5 to 100, spaced evenly in the logarithm, hidden layers of
GELU, AdamW at 5e-3, the mean absolute error. They solve it by an implicit method, which neither this library nor the
paper has; the concentrations are scaled to [0, 1] each, and the network sees and moves the scaled ones.
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


class RobertsonField(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        hidden = [nn.Linear(3 if i == 0 else width, width) for i in range(layers)]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, nn.GELU())), nn.Linear(width, 3))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        del t
        return self.layers(y)


class Robertson(Task):
    wanted: Tensor

    def __init__(self, field: RobertsonField, t: Tensor, wanted: Tensor, seed: int) -> None:
        super().__init__(batch=1, seed=seed)
        self.field, self.t = field, t
        self.register_buffer("wanted", wanted, persistent=False)  # (points, 3), scaled

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=5e-3)

    def loss(self, integrate: Integrate, iteration: int) -> Tensor:
        del iteration
        return (self._solved(integrate) - self.wanted).abs().mean()

    def metrics(self, integrate: Integrate) -> dict[str, float]:
        """error: the loss itself, all that there is being trained on."""
        return {"error": float((self._solved(integrate) - self.wanted).abs().mean())}

    def _solved(self, integrate: Integrate) -> Tensor:
        return integrate(self.field, self.wanted[:1], self.t)[:, 0]


def draw(batch: int, seed: int, cache_dir: Path, *, width: int = 5, layers: int = 4, end: float = END) -> Robertson:
    if batch != 1:
        raise ValueError(f"robertson has one way to learn from, so batch must be 1; got {batch}")
    arrays = load_arrays(_file(cache_dir))
    t, y = torch.from_numpy(arrays["t"]), torch.from_numpy(arrays["y"])
    kept = t <= end * (1 + 1e-9)
    least, most = y.min(dim=0).values, y.max(dim=0).values
    return Robertson(RobertsonField(width, layers), t[kept], ((y - least) / (most - least))[kept], seed)


def prepare(sizes: Mapping[str, Any], cache_dir: Path, data_dir: Path | None) -> None:
    del sizes, data_dir
    if _file(cache_dir).exists():
        return
    from scipy.integrate import solve_ivp  # Imported here because only who fills the cache may pay for it.

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
