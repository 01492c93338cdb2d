"""A multilayer perceptron as the field, the model problem of neural ODEs."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from symplectic_bench.problems.formula import Arithmetic, Array, Held
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, output_times


class MLPField(nn.Module):
    """y' = W_L tanh(.. tanh(W_1 y + b_1 + t u) ..) + b_L: every layer but the last is followed by tanh.

    The time t enters the first layer, where it costs next to nothing.
    """

    def __init__(self, layers: list[nn.Linear], time_weight: Tensor) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.time_weight = nn.Parameter(time_weight)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        first, *others = self.layers
        y = first(y) + t * self.time_weight
        for layer in others:
            y = layer(torch.tanh(y))
        return y


def formula(ops: Arithmetic, theta: Sequence[Array], held: Held, t: Array, y: Array) -> Array:
    """Evaluate the field in any arithmetic."""
    del held
    time_weight, *layers = theta
    weights, biases = layers[::2], layers[1::2]
    y = y @ weights[0].T + biases[0] + time_weight * t
    for W, b in zip(weights[1:], biases[1:], strict=True):
        y = ops.tanh(y) @ W.T + b
    return y


def dense(source: Source, inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """Draw a linear layer with small biases, whose outputs vary by `gain` for inputs that vary by 1."""
    layer = nn.Linear(inputs, outputs, dtype=torch.float64)
    layer.weight = nn.Parameter(source.normal(outputs, inputs, std=gain / inputs**0.5))
    layer.bias = nn.Parameter(source.normal(outputs, std=0.1))
    return layer


def draw_field(source: Source, state: int, width: int, layers: int) -> MLPField:
    """Draw a network of `layers` hidden layers of `width` units on states of `state` components."""
    widths = [state, *[width] * layers, state]
    stack = [dense(source, n, m, gain=0.8) for n, m in pairwise(widths)]
    return MLPField(stack, time_weight=source.normal(widths[1]))


def draw(
    source: Source,
    batch: int,
    *,
    state: int = 8,
    width: int = 64,
    layers: int = 2,
    end: float = 4.0,
    outputs: int = 1,
) -> Problem:
    """Draw a network of `layers` hidden layers of `width` units on states of `state` components.

    dopri5 takes about ten steps at rtol 1e-6, and errors grow little.
    """
    func = draw_field(source, state, width, layers)
    y0, target = source.normal(batch, state), source.normal(batch, state)
    return Problem(func, y0, output_times(end, outputs), MeanSquare(target))


MLP = Family("mlp", draw, formula)
