"""Plain backpropagation through the solve."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Backprop:
    """The whole solve stays on the autograd graph: no f call on the way back, memory N s A.

    Step sizes are constants of the graph, so that this is the gradient of the recorded steps too.
    It needs no Function of ours: the solve runs under the caller's autograd.
    """

    exact: ClassVar[bool] = True
