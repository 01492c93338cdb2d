"""Problems of other projects, given by the import path of a function that makes them."""

import importlib
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from symplectic_bench.problems.problem import Family, Loss, Problem, Source

FactoryResult = tuple[nn.Module, Tensor, Tensor, Callable[[Tensor], Tensor]]
"""func, y0, t and the loss of ys, as for odeint."""


class InvalidProblem(ValueError):
    """Raised for an import path from which no problem can be made."""


class GivenLoss(Loss):
    """A loss given as a function of ys. If the function is a module, its tensors move with this one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, ys: Tensor) -> Tensor:
        return self.function(ys)


def load_family(path: str) -> Family:
    """Return the family of problems that `module:factory` makes. Raise InvalidProblem if it cannot be imported.

    factory(batch, **sizes) returns (func, y0, t, loss): a module, a start y0 of shape (batch, dim), increasing times
    and a scalar function of ys of shape (len(t), batch, dim). Its keyword-only arguments are the sizes that a suite
    may give. It draws from torch's global generator, which is seeded beforehand.
    """
    module, _, name = path.partition(":")
    try:
        factory: Callable[..., FactoryResult] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as why:
        raise InvalidProblem(f"problem {path}: {why}") from why
    if not callable(factory):
        raise InvalidProblem(f"problem {path}: {name} is not a function")

    def draw(source: Source, batch: int, **sizes: object) -> Problem:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.generator.initial_seed())
            func, y0, t, loss = factory(batch, **sizes)
        if y0.dim() != 2 or len(y0) != batch:
            raise InvalidProblem(
                f"problem {path}: y0 must be of shape ({batch}, dim), the batch first; got {tuple(y0.shape)}"
            )
        given = (func.double(), y0.detach().double(), t.detach().double().cpu(), GivenLoss(loss).double())
        return Problem(*given, packages=_packages(module, type(func).__module__, getattr(loss, "__module__", module)))

    try:
        draw.__signature__ = inspect.signature(factory)  # pyright: ignore[reportFunctionMemberAccess]
    except ValueError as why:
        raise InvalidProblem(f"problem {path}: {why}") from why
    return Family(path, draw)


def _packages(*modules: str) -> tuple[str, ...]:
    """Return the top-level packages of these modules, without torch."""
    return tuple(sorted({name.partition(".")[0] for name in modules} - {"torch", "builtins"}))
