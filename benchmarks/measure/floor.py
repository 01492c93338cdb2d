"""The floor: what bare network calls cost, which no way of computing the gradient can avoid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.measure.allocator import watch
from benchmarks.problems import Problem


@dataclass(frozen=True)
class Floor:
    """The symbols of the memory formulas, in bytes.

    state_bytes (D): one state. parameter_bytes (P): the parameters. graph_bytes (A): what stays live of one f for its
    vector-Jacobian product, the state at which f was called included where f keeps it, f's value not. vjp_peak_bytes:
    the most live at once in one f and its VJP, above the state and the cotangent.
    """

    state_bytes: int
    parameter_bytes: int
    graph_bytes: int
    vjp_peak_bytes: int


def measure_floor(problem: Problem) -> tuple[Floor, int]:
    """The floor, and the allocator's events in one f and its VJP."""
    device = problem.y0.device.type
    kept: list[object] = []
    (graph, *_), (vjp, *_) = (
        watch(device, lambda: kept.append(_graph_of_f(problem)), kept.clear),
        watch(device, VjpCall(problem)),
    )
    floor = Floor(
        state_bytes=_nbytes(problem.y0),
        parameter_bytes=sum(_nbytes(p) for p in problem.parameters),
        graph_bytes=graph.left_bytes,
        vjp_peak_bytes=vjp.peak_bytes,
    )
    return floor, vjp.events


def floor_tensor_bytes(floor: Floor, gradient: str, steps: int, stages: int) -> int:
    """The least that this gradient must have live at once, for N accepted steps of s stages.

    D a state, A the graph of one f, V the peak of one VJP (with the parameters' gradient of that f), P the parameters'
    accumulated gradient. Where all graphs are live at once, only the first VJP meets them all, and P begins with it:
    the second one meets A less and P more.
    """
    N, s = steps, stages
    D, A, P = floor.state_bytes, floor.graph_bytes, floor.parameter_bytes
    V, above = floor.vjp_peak_bytes, max(0, floor.vjp_peak_bytes - floor.graph_bytes)
    whole_graph = D + N * s * A + above + max(0, P - A)
    formulas = {
        "symplectic": (N + s) * D + V + P,
        "stages": N * s * D + V + P,
        "aca": N * D + s * A + above + P,
        "baseline": whole_graph,
        "backprop": whole_graph,
        "continuous": D + V + P,
        "continuous-seminorm": D + V + P,
    }
    return formulas[gradient]


class VjpCall:
    """One f on the graph and its vector-Jacobian product by y and the parameters: floor of every backward pass."""

    def __init__(self, problem: Problem) -> None:
        self.func, self.t, self.parameters = problem.func, problem.t[0].to(problem.y0), problem.parameters
        self.y = problem.y0.detach().clone().requires_grad_()
        self.cotangent = torch.ones_like(self.y)

    def __call__(self) -> None:
        value = self.func(self.t, self.y)
        torch.autograd.grad(value, (self.y, *self.parameters), self.cotangent, allow_unused=True)


def _graph_of_f(problem: Problem) -> object:
    """The graph of one f alone, at a state that nothing else keeps."""
    Y = problem.y0.clone()  # Not a leaf, which its gradient's accumulator would keep.
    return problem.func(problem.t[0].to(problem.y0), Y).grad_fn


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
