"""The floor: what bare network calls cost, which no way of computing the gradient can avoid."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from symplectic_adjoint import watch_memory
from symplectic_bench.contenders.library_gradients import PRESET_ROOM
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import setting


@dataclass(frozen=True)
class Floor:
    """The symbols of the memory formulas, in bytes.

    state_bytes (D): one state. parameter_bytes (P): the parameters. graph_bytes (A): what stays live of one f for its
    vector-Jacobian product, the state at which f was called included where f keeps it, f's value not. vjp_peak_bytes
    (V): the most live at once in one f and its VJP, above the state, the cotangent and the gradients of the parameters,
    to which autograd adds in place.
    """

    state_bytes: int
    parameter_bytes: int
    graph_bytes: int
    vjp_peak_bytes: int


def measure_floor(problem: Problem) -> tuple[Floor, int]:
    """The floor, and the allocator's events in one f and its VJP."""
    device = problem.y0.device.type
    kept: list[object] = []
    graph, _ = watch_memory(device, lambda: kept.append(_graph_of_f(problem)), kept.clear)
    with VjpCall(problem) as call:
        (vjp,) = watch_memory(device, call)
    floor = Floor(
        state_bytes=_nbytes(problem.y0),
        parameter_bytes=sum(_nbytes(p) for p in problem.parameters),
        graph_bytes=graph.left_bytes,
        vjp_peak_bytes=vjp.peak_bytes,
    )
    return floor, vjp.events


def floor_tensor_bytes(floor: Floor, gradient: str, steps: int, stages: int, components: int = 1) -> int:
    """The least that this gradient must have live at once, for N accepted steps of s stages, M components' together.

    D a state, A the graph of one f, V the peak of one VJP, P the parameters' gradient. Where all graphs are live at
    once, only the first VJP meets them all, and P begins with it: the second one meets A less and P more. Where nothing
    grows with N, what else is live counts: the two states and two cotangents of a pair, and two outputs with theirs.
    auto fills its budget, as far as there is anything to hold.
    """
    N, s, M = steps, stages, components
    D, A, P = floor.state_bytes, floor.graph_bytes, floor.parameter_bytes
    V, above = floor.vjp_peak_bytes, max(0, floor.vjp_peak_bytes - floor.graph_bytes)
    whole_graph = D + N * s * A + above + max(0, P - A)
    one_graph = M * D + -(-N // M) * s * A + above + max(0, P - A)
    dial, number = setting(gradient)
    kept, held = min(number or PRESET_ROOM, max(0, N - 1)), min(number, N * s)
    formulas = {
        "symplectic": (N + s) * D + V + P,
        "stages": N * s * D + V + P,
        "revolve": (kept + 1 + s) * D + V + P,
        "graphs": (N + max(s, held)) * D + held * A + above + P,
        "auto": min(number * 1024, (N + N * s) * D + N * s * A + above + P),
        "disk": (1 + s) * D + V + P,
        "aca": N * D + s * A + above + P,
        "baseline": one_graph,
        "backprop": whole_graph,
        "reversible": (2 * (M - 1) + 8 + s) * D + V + P,
        "mali": (2 * (M - 1) + 7) * D + V + P,
        "continuous": M * D + V + P,
        "continuous-seminorm": M * D + V + P,
    }
    return formulas[dial]


class VjpCall:
    """One f on the graph and its vector-Jacobian product by y and the parameters: floor of every backward pass.

    Within its context the parameters have gradients already: autograd adds to them in place.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.func, self.t = problem, problem.fields[0], problem.t[0].to(problem.y0)
        self.y = problem.y0.detach().clone().requires_grad_()
        self.cotangent = torch.ones_like(self.y)

    def __enter__(self) -> Self:
        for parameter in self.problem.parameters:
            parameter.grad = torch.zeros_like(parameter)
        return self

    def __exit__(self, *_: object) -> None:
        self.problem.clear_gradients()

    def __call__(self) -> None:
        torch.autograd.backward(self.func(self.t, self.y), self.cotangent)
        self.y.grad = None


def _graph_of_f(problem: Problem) -> object:
    """The graph of one f alone, at a state that nothing else keeps."""
    Y = problem.y0.clone()  # Not a leaf, which its gradient's accumulator would keep.
    return problem.fields[0](problem.t[0].to(problem.y0), Y).grad_fn


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
