"""Problems of other projects, given by the import path of a function that makes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from symplectic_bench.problems.problem import Family, Loss, Problem, Source
from symplectic_bench.problems.users_factory import Factory, load_factory, seeded, shown, users_code
from symplectic_bench.problems.users_source import source_digest
from symplectic_bench.spec.cell import Size


class GivenLoss(Loss):
    """A loss given as a function of ys. If the function is a module, its tensors move with this one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, ys: Tensor) -> Tensor:
        return self.function(ys)


@dataclass(frozen=True)
class UsersFamily(Family):
    """The problems that a user's function makes. Its module is imported when a problem or the sizes are asked for."""

    @property
    def sizes(self) -> dict[str, Size]:
        return dict(load_factory(self.name).sizes)

    def table(self, sizes: Mapping[str, Size]) -> None:
        """Return None: a size called data is the user's."""


def load_family(path: str) -> UsersFamily:
    """Return the family of problems that `module:factory` makes, which draws from the global generators."""
    return UsersFamily(path, partial(_draw, path))


def _draw(path: str, source: Source, batch: int, **sizes: Size) -> Problem:
    factory = load_factory(path)
    func, y0, t, loss = factory.make(batch, source.generator.initial_seed(), sizes)
    with users_code(path, "converting func and loss to float64"):
        given = (func.double(), y0.detach().double(), t.detach().double().cpu(), GivenLoss(loss).double())
    made_of = (path.partition(":")[0], type(func).__module__, getattr(loss, "__module__", None) or "")
    return Problem(*given, source=source_digest(*made_of))


def source_of(path: str) -> str:
    """Return the digest of the source of the function's module and of what it imports."""
    return source_digest(path.partition(":")[0], load_factory(path).function.__module__)


def examine(path: str, build: Callable[[], Problem]) -> None:
    """Build a problem twice, and call its field and its loss.

    Raise InvalidProblem if one of them raises, returns a value of another form, or differs the second time.
    """
    factory = load_factory(path)
    with users_code(path, "copying the problem"):
        problem, again = build(), build()
    loss, repeated = _probe(factory, problem), _probe(factory, again)
    if _numbers(problem) != _numbers(again) or not torch.allclose(loss, repeated, equal_nan=True):
        draws = "draw from the generator of torch, numpy or random, which are seeded before each call"
        raise factory.refuse(f"two calls with the same arguments and seed give different numbers: {draws}")


def _probe(factory: Factory, problem: Problem) -> Tensor:
    """Return the loss of a path that stays at the start."""
    y0 = problem.y0
    with seeded(0), users_code(factory.path, "func(t, y)"):
        value = problem.func(y0.new_tensor(problem.t[0].item()), y0)
    if not isinstance(value, Tensor) or value.shape != y0.shape or value.dtype != y0.dtype:
        raise factory.refuse(f"func(t, y) must return dy/dt, like y, {shown(y0)}; got {shown(value)}")
    ys = y0.detach().repeat(len(problem.t), 1, 1).requires_grad_()
    with seeded(0), users_code(factory.path, "loss(ys)"):
        loss = problem.loss(ys)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise factory.refuse(f"loss(ys) must be a scalar tensor; got {shown(loss)}")
    if not loss.requires_grad:
        raise factory.refuse("loss(ys) must be differentiable; got a tensor without a graph, as of no_grad or .item()")
    return loss.detach()


def _numbers(problem: Problem) -> list[bytes]:
    tensors = (problem.t, problem.y0, *problem.func.state_dict().values(), *problem.loss.state_dict().values())
    return [x.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for x in tensors if isinstance(x, Tensor)]
