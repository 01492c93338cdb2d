"""A stack of multilayer perceptrons, solved in turn like the M components of a flow in Table 1."""

from symplectic_bench.problems.mlp import draw_field, formula
from symplectic_bench.problems.problem import Family, MeanSquare, Problem, Source, Stack, output_times


def draw(
    source: Source,
    batch: int,
    *,
    components: int = 2,
    state: int = 8,
    width: int = 64,
    layers: int = 2,
    end: float = 1.0,
) -> Problem:
    """Draw `components` fields of `layers` hidden layers of `width` units, each solved from 0 to `end`."""
    fields = [draw_field(source, state, width, layers) for _ in range(components)]
    y0, target = source.normal(batch, state), source.normal(batch, state)
    return Problem(Stack(fields), y0, output_times(end, 1), MeanSquare(target))


STACK = Family("stack", draw, formula, stacked=True)
