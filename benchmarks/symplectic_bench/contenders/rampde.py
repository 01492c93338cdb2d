"""rampde as a contender: solves in mixed precision (Celledoni, Owren, Ruthotto, Yang 2025, arXiv:2510.23498).

Checked against rampde 0.1.0.post1, https://github.com/EmoryMLIP/rampde, MIT licence. It keeps the state of every step
and holds the graph of one step at a time, so its gradient is called aca here. Under autocast to bfloat16, which it
knows on CUDA devices only, f, the states that it keeps and its outputs are bfloat16; the sums of steps and of gradients
have the dtype of y0. Without autocast everything has. Not given float16: if its backward pass fails there, it leaves
the parameters in that dtype, for all contenders that are timed in the same process.
"""

import contextlib
import importlib
import warnings
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.observation import Replay, replay_of_equal_steps
from symplectic_bench.contenders.peer import Peer
from symplectic_bench.contenders.reasons import (
    not_installed,
    one_tensor_at_constant_times,
    outputs_between_steps,
    shared_reason,
    unknown_gradient,
)
from symplectic_bench.contenders.step_size import equal_grid, outputs_of
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import Cell

METHODS = ("euler", "rk4")
"""Its methods, which have our names."""


@dataclass(frozen=True)
class Rampde(Peer):
    """rampde's odeint, which steps from output to output, under autocast if its precision is bfloat16."""

    name: str = "rampde"
    precision: str | None = None
    gradients: tuple[str, ...] = ("aca",)

    def decline(self, cell: Cell) -> str | None:
        if reason := unknown_gradient(self, cell) or one_tensor_at_constant_times(self, cell):
            return reason
        if cell.method not in METHODS:
            return f"rampde has no method {cell.method!r}; it has {' and '.join(METHODS)}"
        if self.precision and (cell.device, cell.dtype) != ("cuda", "float32"):
            return f"{self.name} is for float32 on cuda, not for {cell.dtype} on {cell.device}: use rampde"
        return outputs_between_steps("rampde", cell) or shared_reason(cell, adaptive=False)

    def missing(self) -> str | None:
        return not_installed("rampde", 'python -m pip install "git+https://github.com/EmoryMLIP/rampde"')

    def load(self) -> ModuleType:
        return importlib.import_module("rampde")

    def solve(self, func: nn.Module, problem: Problem, cell: Cell) -> Tensor:
        odeint, grid = self.load().odeint, equal_grid(cell, problem)
        mixed = torch.autocast("cuda", dtype=torch.bfloat16) if self.precision else contextlib.nullcontext()
        with warnings.catch_warnings(), mixed:
            # Of its own autocast, in every step, where there is no CUDA device or the dtype is not a low one.
            warnings.filterwarnings("ignore", message="(?s).*Disabling autocast", category=UserWarning)
            ys = odeint(TimesOfStates(func), problem.y0, grid, method=cell.method)
        return outputs_of(ys, problem).to(problem.y0.dtype)

    def gives_up(self, error: Exception) -> bool:
        del error  # its steps are fixed
        return False

    def replay(self, witness: CountedField, problem: Problem, cell: Cell) -> Replay:
        del witness
        return replay_of_equal_steps(cell, problem)


class TimesOfStates(nn.Module):
    """A field for rampde, which calls it with the float64 times of the grid. The wrapped one gets the state's dtype."""

    def __init__(self, func: nn.Module) -> None:
        super().__init__()
        self.func = func

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.func(t.to(y.dtype), y)


RAMPDE = Rampde()
RAMPDE_BF16 = Rampde("rampde-bf16", precision="bfloat16")
