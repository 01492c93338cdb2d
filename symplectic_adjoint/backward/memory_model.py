"""Peak memory of a solve and its backward pass, predicted from the cost of one f call."""

from dataclasses import dataclass
from functools import cached_property

from symplectic_adjoint.backward.cost import CallCost
from symplectic_adjoint.steps.dense_outputs import FEWEST_AT_ONCE, MOST_AT_ONCE, MOST_BYTES


@dataclass(frozen=True)
class Prediction:
    """Predicted f calls, VJPs and peak bytes of one solve and its gradient."""

    f_calls_forward: int
    f_calls_backward: int
    vjps_backward: int
    peak_tensor_bytes: int


def backward_calls(steps: int, stages: int) -> int:
    """Return the f calls of a backward pass that recomputes stages; the last of several steps still has its own."""
    return steps * (2 * stages - 1) - (stages - 1 if steps > 1 else 0)


@dataclass(frozen=True)
class MemoryModel:
    """Peak bytes of live tensors, given how many states and graphs are kept.

    stages: the effective stages s of the method. outputs: the number of output times; ys and their cotangents are live.
    adaptive: whether step size control estimates errors, which takes some states. rows: those of the extended tableau
    that dense output needs. inside: the most outputs that may lie inside one step.
    """

    cost: CallCost
    stages: int
    outputs: int
    adaptive: bool
    rows: int = 0
    inside: int = 0

    @property
    def least_bytes(self) -> int:
        """The least memory for a gradient: the current step, its start, and one more start."""
        return self.peak_bytes(2, 0, 0)

    @property
    def programs_bytes(self) -> int:
        """What captured programs hold besides the working memory of a step: their buffers, pool and sums."""
        cost, rows = self.cost, self.stages + 1
        states = rows + 5 + (2 * rows if self.outputs > 2 else 0)
        return states * cost.state_bytes + cost.vjp_peak_bytes + cost.parameter_bytes

    def peak_bytes(self, starts: int, stages: int, graphs: int) -> int:
        """Return the peak with this many step starts, stages, and graphs of f calls kept."""
        return max(self.forward_bytes(starts, stages, graphs), self.backward_bytes(starts, stages, graphs))

    def whole_graph_bytes(self, steps: int) -> int:
        """Return the peak with the whole solve on one graph, as in backpropagation, where outputs are live twice."""
        cost, states = self.cost, 1 + 3 * self.outputs
        graphs = steps * self.stages * cost.saved_bytes + max(0, cost.vjp_peak_bytes - cost.graph_bytes)
        return states * cost.state_bytes + graphs + cost.parameter_bytes

    def one_step_on_graph_bytes(self) -> int:
        """Return how much more memory the backward pass takes with a whole step on the graph instead of one f call."""
        cost = self.cost
        return self.stages * cost.graph_bytes + max(0, cost.vjp_peak_bytes - cost.graph_bytes) - cost.vjp_peak_bytes

    def forward_bytes(self, starts: int, stages: int, graphs: int) -> int:
        """Return the peak of the forward pass.

        It is reached in the f call of a step's last stage, or in the error estimate.
        """
        cost = self.cost
        kept = (starts + stages) * cost.state_bytes + graphs * cost.graph_bytes
        return self._forward_overhead_bytes[graphs > 0] + kept

    def backward_bytes(self, starts: int, stages: int, graphs: int) -> int:
        """Return the peak of the backward pass, reached in its first VJP.

        The stages of the current step are among the kept ones, if any are kept.
        """
        cost, states = self.cost, starts + max(stages, self.stages)
        return self._backward_overhead_bytes[graphs > 0] + states * cost.state_bytes + graphs * cost.graph_bytes

    @property
    def _sums(self) -> int:
        """The states in sums that are formed together: those of the stages, y+, errors, and constants."""
        return self.stages + 4 if self.cost.sums_together else 0

    # Live bytes besides those kept: (without, with) graphs held. Cached, because a budget asks at every step.

    @cached_property
    def _forward_overhead_bytes(self) -> tuple[int, int]:
        cost = self.cost
        error_estimate = 8 * cost.state_bytes if self.adaptive else 0
        peaks = (cost.call_peak_bytes, cost.linearize_peak_bytes)
        plain, on_graph = (max(2 * cost.state_bytes + peak, error_estimate) for peak in peaks)
        states = (self.outputs + self.stages + self._added_rows + self._sums) * cost.state_bytes
        return states + plain, states + on_graph

    @cached_property
    def _backward_overhead_bytes(self) -> tuple[int, int]:
        cost = self.cost
        states = 2 * self.outputs + 1 + self._sums + (self.stages if self._sums else 0)  # of w_i beside those of Y_i
        at_once, rows = self._outputs_at_once, self._added_rows
        states += rows + (self.stages + rows + 1 if at_once else 0)  # a sum of cotangents for each row, and one for y
        fixed, least = states * cost.state_bytes + cost.parameter_bytes, at_once * cost.state_bytes
        on_graph = max(0, cost.separate_peak_bytes - cost.graph_bytes)
        return fixed + max(cost.vjp_peak_bytes, least), fixed + max(on_graph, least)

    @property
    def _added_rows(self) -> int:
        """The stages that dense output adds to a step, if an output may lie inside one."""
        return max(0, self.rows - self.stages) if self.inside > 0 else 0

    @property
    def _outputs_at_once(self) -> int:
        """The most outputs inside a step whose cotangents are summed at once, 0 if they are taken one by one."""
        count = min(self.inside, MOST_AT_ONCE, MOST_BYTES // max(1, self.cost.state_bytes))
        return count if count >= FEWEST_AT_ONCE else 0
