"""Problems of other projects, by the import path of a function that makes one."""

import importlib
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from symplectic_bench.problems.problem import Family, Loss, Problem, Source

Made = tuple[nn.Module, Tensor, Tensor, Callable[[Tensor], Tensor]]
"""func, y0, t and the loss of ys, as given to odeint."""


class NoProblem(ValueError):
    """An import path that leads to no problem."""


class GivenLoss(Loss):
    """A loss that is a function of ys. Where it is a module, what it holds moves with it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, ys: Tensor) -> Tensor:
        return self.function(ys)


def load_family(path: str) -> Family:
    """The problems that `module:factory` makes.

    factory(batch, **sizes) returns (func, y0, t, loss): a module, a start of `batch` rows (batch, dim), increasing
    times and a scalar function of ys (len(t), batch, dim). Its keyword-only arguments are the sizes that a suite may
    give. What it draws comes from torch's generator, which is seeded before. Raises NoProblem where it cannot be
    imported.
    """
    module, _, name = path.partition(":")
    try:
        factory: Callable[..., Made] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as why:
        raise NoProblem(f"problem {path}: {why}") from why
    if not callable(factory):
        raise NoProblem(f"problem {path}: {name} is no function")

    def draw(source: Source, batch: int, **sizes: object) -> Problem:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.generator.initial_seed())
            func, y0, t, loss = factory(batch, **sizes)
        if y0.dim() != 2 or len(y0) != batch:
            raise NoProblem(f"problem {path}: y0 must be ({batch}, dim), the batch first; got {tuple(y0.shape)}")
        given = (func.double(), y0.detach().double(), t.detach().double().cpu(), GivenLoss(loss).double())
        return Problem(*given, packages=_packages(module, type(func).__module__, getattr(loss, "__module__", module)))

    try:
        draw.__signature__ = inspect.signature(factory)  # pyright: ignore[reportFunctionMemberAccess]
    except ValueError as why:
        raise NoProblem(f"problem {path}: {why}") from why
    return Family(path, draw)


def _packages(*modules: str) -> tuple[str, ...]:
    """The packages that a problem is made of, but for torch itself."""
    return tuple(sorted({name.partition(".")[0] for name in modules} - {"torch", "builtins"}))
