"""An outlier in the batch: van der Pol's oscillator with one start far out, for which all the others wait.

One step size for the batch is that of its worst sample. What the outlier costs shows beside van_der_pol.
"""

from dataclasses import replace

import torch

from symplectic_bench.problems.problem import Family, Problem, Source
from symplectic_bench.problems.van_der_pol import VAN_DER_POL, formula


def draw(
    source: Source, batch: int, *, factor: float = 6.0, mu: float = 1.0, end: float = 5.0, outputs: int = 10
) -> Problem:
    """The problem van_der_pol, its first start moved from about (2, 0) to about (2 `factor`, 0).

    There it creeps in at a speed of 1 / (mu x), but stability holds steps to some 3 / (mu x^2).
    """
    problem = VAN_DER_POL.draw(source, batch, mu=mu, end=end, outputs=outputs)
    far = torch.zeros_like(problem.y0)
    far[0, 0] = 2 * (factor - 1)
    return replace(problem, y0=problem.y0 + far)


OUTLIER = Family("outlier", draw, formula)
