"""A network that is solved for one step between observations, and a cell that takes each of them in.

Rubanova, Chen and Duvenaud, Latent ordinary differential equations for irregularly-sampled time series, NeurIPS 2019,
section 3.1: the ODE-RNN.
"""

import torch
from torch import nn

from symplectic_bench.problems.mlp import draw_field, formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Recurrent, Source, output_times


def gated_unit(source: Source, inputs: int, units: int) -> nn.GRUCell:
    """Draw a gated recurrent unit."""
    cell = nn.GRUCell(inputs, units, dtype=torch.float64)
    for name, parameter in list(cell.named_parameters()):
        setattr(cell, name, nn.Parameter(source.normal(*parameter.shape, std=units**-0.5)))
    return cell


def draw(
    source: Source,
    batch: int,
    *,
    components: int = 4,
    state: int = 8,
    width: int = 32,
    layers: int = 1,
    features: int = 2,
    end: float = 0.2,
) -> Problem:
    """Draw series of `components` - 1 observations with `features` numbers each, `end` apart."""
    field = draw_field(source, state, width, layers)
    observed = source.normal(components - 1, batch, features)
    func = Recurrent(field, gated_unit(source, features, state), observed)
    y0, target = source.normal(batch, state), source.normal(batch, state)
    return Problem(func, y0, output_times(end, 1), MeanSquare(target))


RECURRENT = Family("recurrent", draw, formula, stacked=True)
