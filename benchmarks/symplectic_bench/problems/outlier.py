"""An outlier in the batch: the van der Pol oscillator with one start far from the limit cycle.

A batch that shares one step size uses that of its worst sample. Comparison with van_der_pol shows the cost.
"""

from dataclasses import replace

import torch

from symplectic_bench.problems.problem import Family, Problem, Source
from symplectic_bench.problems.van_der_pol import VAN_DER_POL, formula


def draw(
    source: Source, batch: int, *, factor: float = 6.0, mu: float = 1.0, end: float = 5.0, outputs: int = 10
) -> Problem:
    """Draw the problem van_der_pol with its first start moved from about (2, 0) to about (2 `factor`, 0).

    From there it approaches at speed 1 / (mu x), while stability limits steps to about 3 / (mu x^2).
    """
    problem = VAN_DER_POL.draw(source, batch, mu=mu, end=end, outputs=outputs)
    far = torch.zeros_like(problem.y0)
    far[0, 0] = 2 * (factor - 1)
    return replace(problem, y0=problem.y0 + far)


OUTLIER = Family("outlier", draw, formula)
