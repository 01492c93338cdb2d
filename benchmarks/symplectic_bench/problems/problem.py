"""A problem: the field, start, times and loss that are solved and differentiated, and the source of their numbers."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from symplectic_bench.data.tables import load_table
from symplectic_bench.problems.formula import Arithmetic, Array, Formula, Held, LossFormula, SolutionFormula
from symplectic_bench.spec.cell import Size

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Stack(nn.ModuleList):
    """Fields solved one after another over the same times: each starts where the previous one ended."""


class Recurrent(nn.Module):
    """One field solved over the same times again and again, with a cell that takes in an observation in between.

    The cell is a gated recurrent unit; before the i-th solve, i > 0, it updates the state with observed[i - 1].
    """

    observed: Tensor

    def __init__(self, field: nn.Module, cell: nn.GRUCell, observed: Tensor) -> None:
        super().__init__()
        self.field, self.cell = field, cell
        self.register_buffer("observed", observed)

    def enter(self, i: int, y: Tensor) -> Tensor:
        """Return the start of the i-th solve, given the end of the one before."""
        return self.cell(self.observed[i - 1], y) if i else y

    @staticmethod
    def formula(ops: Arithmetic, theta: Sequence[Array], x: Array, y: Array) -> Array:
        """Evaluate the cell in any arithmetic; theta are its parameters."""
        by_x, by_y, x_bias, y_bias = theta
        units = y.shape[1]
        from_x, from_y = x @ by_x.T + x_bias, y @ by_y.T + y_bias
        reset, kept = (ops.sigmoid(from_x[:, i : i + units] + from_y[:, i : i + units]) for i in (0, units))
        new = ops.tanh(from_x[:, 2 * units :] + reset * from_y[:, 2 * units :])
        return new + kept * (y - new)


class Split(nn.Module):
    """A field in two parts, for methods that solve for the second one only: func(t, y) is their sum."""

    def __init__(self, explicit: nn.Module, implicit: nn.Module) -> None:
        super().__init__()
        self.explicit, self.implicit = explicit, implicit

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.explicit(t, y) + self.implicit(t, y)


class Loss(nn.Module):
    """A scalar loss of ys, and its formula."""

    formula: LossFormula


@dataclass(frozen=True)
class Problem:
    """y' = func(t, y) from y0, and a scalar loss of ys = y(t), to be differentiated in y0 and func's parameters.

    y0, (batch, dim), is a leaf that requires grad; t is float64 on the CPU, y0's time first; loss takes ys of shape
    (len(t), batch, dim). All tensors of func and loss have y0's dtype and device. formula is func in any arithmetic,
    given the family's `sizes`; solution is y(t) if it has a closed form. jumps are the times at which func jumps.
    source is the digest of the code that a user's own problem is made of. moving_t is t as a leaf that requires grad,
    if the loss is differentiated in the times too. parts are the sizes into which solvers of structured states split
    the state's last dimension, to get a tuple.

    If func is a Stack or Recurrent, ys are those of the last solve (see in_turn), and formula is that of each field. If
    it is a Split, solvers that treat its parts differently are given the pair.
    """

    func: nn.Module
    y0: Tensor
    t: Tensor
    loss: Loss
    formula: Formula | None = None
    solution: SolutionFormula | None = None
    sizes: Mapping[str, Size] = field(default_factory=dict)
    jumps: tuple[float, ...] = ()
    source: str = ""
    moving_t: Tensor | None = None
    parts: tuple[int, ...] = ()

    @property
    def unlisted(self) -> tuple[Tensor, ...]:
        """Tensors that func uses but that are not among its parameters."""
        return tuple(getattr(self.func, "unlisted", ()))

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (*self.func.parameters(), *self.unlisted)

    @property
    def fields(self) -> tuple[nn.Module, ...]:
        """The fields that are solved in turn: those of a Stack, the one of a Recurrent again and again, or func."""
        if isinstance(self.func, Recurrent):
            return (self.func.field,) * (1 + len(self.func.observed))
        return tuple(self.func) if isinstance(self.func, Stack) else (self.func,)

    @property
    def pair(self) -> tuple[nn.Module, nn.Module]:
        """The parts (explicit, implicit) of func, which must be a Split."""
        assert isinstance(self.func, Split), "problems without a split are declined"
        return self.func.explicit, self.func.implicit

    @property
    def components(self) -> int:
        return len(self.fields)

    def component(self, i: int, y0: Tensor, /) -> Self:
        """Return the problem of the i-th field alone, from where the one before it ended."""
        start = self.func.enter(i, y0) if isinstance(self.func, Recurrent) else y0
        return replace(self, func=self.fields[i], y0=start)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors by which the loss is differentiated: y0, then the parameters, then the times if they move."""
        return (self.y0, *self.parameters, *(() if self.moving_t is None else (self.moving_t,)))

    @property
    def solved_t(self) -> Tensor:
        """The times for a solve whose gradient is wanted."""
        return self.t if self.moving_t is None else self.moving_t

    def to(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> Self:
        """Return a copy in this dtype, but for times, and on this device. It shares only t with the original."""
        return replace(
            self,
            func=copy.deepcopy(self.func).to(dtype=dtype, device=device),
            y0=self.y0.detach().to(dtype=dtype, device=device, copy=True).requires_grad_(),
            loss=copy.deepcopy(self.loss).to(dtype=dtype, device=device),
            moving_t=None if self.moving_t is None else self.moving_t.detach().clone().requires_grad_(),
        )

    def f(self, t: float | Tensor, y: Tensor, /) -> Tensor:
        """Evaluate func at a time given as a plain number, as replays do, or as a function of times that move."""
        return self.func(t.to(y) if isinstance(t, Tensor) else y.new_tensor(t), y)

    def number(self, x: float, /) -> float:
        return x

    def stack(self, ys: Sequence[Tensor], /) -> Tensor:
        return torch.stack(list(ys))

    def clear_gradients(self) -> None:
        for tensor in self.inputs:
            tensor.grad = None

    def gradient(self) -> list[Tensor]:
        """Return copies of the .grad of the inputs, zeros where it is None."""
        return [torch.zeros_like(x) if x.grad is None else x.grad.detach().clone() for x in self.inputs]


@dataclass(frozen=True)
class Source:
    """The source of a problem's numbers: a seeded generator and the tables of real data cached in a folder."""

    generator: torch.Generator
    cache_dir: Path | None

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def rows(self, data: str, number: int) -> Tensor:
        """Return `number` distinct rows of the table `data` in random order. Raise ValueError if it has fewer."""
        table = load_table(data, self.cache_dir)
        if number > len(table):
            raise ValueError(f"batch={number} asks for more than the {len(table)} rows of {data}: take a smaller batch")
        return table[torch.randperm(len(table), generator=self.generator)[:number]]


@dataclass(frozen=True)
class Family:
    """Problems of one kind. `draw(source, batch, **sizes)` makes one, in float64 on the CPU.

    The keyword-only arguments of `draw` are the sizes that a suite may give, with their defaults. formula is the field
    in any arithmetic, or None for a user's own problem; solution is y(t) if it has a closed form. split: the formulas
    of the parts if the field is a Split; each takes all of its parameters. jumps: whether the field jumps at some
    times. stacked: whether it is a Stack or Recurrent. unlisted: whether it uses tensors that are not among its
    parameters. moving_times, parts: whether its problems have moving_t and parts. mixed: whether the field computes in
    a lower precision than its state has, and than the formula.
    """

    name: str
    draw: Callable[..., Problem]
    formula: Formula | None = None
    solution: SolutionFormula | None = None
    split: tuple[Formula, Formula] | None = None
    jumps: bool = False
    stacked: bool = False
    unlisted: bool = False
    moving_times: bool = False
    parts: bool = False
    mixed: bool = False

    @property
    def sizes(self) -> dict[str, Size]:
        arguments = inspect.signature(self.draw).parameters.values()
        return {a.name: a.default for a in arguments if a.kind is a.KEYWORD_ONLY}

    def table(self, sizes: Mapping[str, Size]) -> str | None:
        """Return the name of the table of real data that a problem of these sizes draws from, or None."""
        found = {**self.sizes, **sizes}.get("data")
        return found if isinstance(found, str) else None

    def build(
        self,
        sizes: Mapping[str, Size],
        batch: int,
        dtype: str,
        device: str = "cpu",
        seed: int = 0,
        cache_dir: Path | None = None,
    ) -> Problem:
        """Draw weights and data in float64 and round them to `dtype`. Raise ValueError for an unknown size or dtype."""
        self.check(sizes)
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
        source = Source(torch.Generator().manual_seed(seed), cache_dir)
        drawn = self.draw(source, batch, **sizes)
        own = replace(drawn, formula=self.formula, solution=self.solution, sizes={**self.sizes, **sizes})
        return own.to(DTYPES[dtype], device)

    def check(self, sizes: Mapping[str, Size]) -> None:
        """Raise ValueError for an unknown size, or one whose type differs from its default's."""
        for name, value in sizes.items():
            if name not in self.sizes:
                raise ValueError(f"{self.name} has no size {name!r}; it has {', '.join(self.sizes)}")
            kind = type(self.sizes[name])
            if not isinstance(value, (int, float) if kind is float else kind):
                raise ValueError(f"size {name} of {self.name} must be of type {kind.__name__}; got {value!r}")


class HasComponents(Protocol):
    """An object with one or more components: a Problem, or its twin in another arithmetic."""

    @property
    def y0(self) -> Any: ...
    @property
    def components(self) -> int: ...
    def component(self, i: int, y0: Any, /) -> Self: ...


Part = TypeVar("Part", bound=HasComponents)


def in_turn(problem: Part, solve: Callable[[Part], Any]) -> Any:
    """Solve the components in turn, each from the end of the previous one, and return ys of the last."""
    ys = solve(problem.component(0, problem.y0))
    for i in range(1, problem.components):
        ys = solve(problem.component(i, ys[-1]))
    return ys


class MeanSquare(Loss):
    """The mean of (y - target)^2 over the outputs after the start, the batch and the state's components."""

    target: Tensor

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.register_buffer("target", target)

    def forward(self, ys: Tensor) -> Tensor:
        return (ys[1:] - self.target).square().mean()

    @staticmethod
    def formula(ops: Arithmetic, held: Held, ys: Array) -> Array:
        del ops
        off = ys[1:] - held["target"]
        return (off * off).sum() / off.size


def output_times(end: float, outputs: int) -> Tensor:
    """Return 0, then `outputs` equally spaced times up to `end`, in float64."""
    return torch.linspace(0.0, end, outputs + 1, dtype=torch.float64)
