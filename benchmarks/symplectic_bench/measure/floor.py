"""The floor: the cost of the bare network calls, which no way of computing the gradient can avoid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from symplectic_adjoint import watch_memory
from symplectic_bench.contenders.gradient_records import Symbols, gradient_record
from symplectic_bench.problems import Problem
from symplectic_bench.spec.cell import setting


@dataclass(frozen=True)
class Floor:
    """The symbols of the memory formulas, in bytes.

    state_bytes (D): one state. parameter_bytes (P): the parameters. graph_bytes (A): the tensors that one f keeps live
    for its vector-Jacobian product, including the state at which f was called if f keeps it, excluding f's value.
    vjp_peak_bytes (V): the peak of one f and its VJP, above the state, the cotangent and the parameters' gradients,
    to which autograd adds in place.
    """

    state_bytes: int
    parameter_bytes: int
    graph_bytes: int
    vjp_peak_bytes: int


def measure_floor(problem: Problem) -> tuple[Floor, int]:
    """Return the floor, and the number of allocator events in one f and its VJP."""
    device = problem.y0.device.type
    kept: list[object] = []
    graph, _ = watch_memory(device, lambda: kept.append(_graph_of_f(problem)), kept.clear)
    with BareCalls(problem, vjps=1) as call:
        (vjp,) = watch_memory(device, call)
    floor = Floor(
        state_bytes=_nbytes(problem.y0),
        parameter_bytes=sum(_nbytes(p) for p in problem.parameters),
        graph_bytes=graph.left_bytes,
        vjp_peak_bytes=vjp.peak_bytes,
    )
    return floor, vjp.events


def floor_tensor_bytes(floor: Floor, gradient: str, steps: int, stages: int, components: int = 1) -> int | None:
    """Return the bytes that must be live at once by this gradient's formula, or None if it has no formula.

    steps is the number of accepted steps of all components together, stages the number of stages of each.
    """
    record, (_, number) = gradient_record(gradient), setting(gradient)
    if record.memory is None:
        return None
    D, A, P = floor.state_bytes, floor.graph_bytes, floor.parameter_bytes
    V, number = floor.vjp_peak_bytes, number or record.default_number
    return record.memory(Symbols(N=steps, s=stages, M=components, D=D, A=A, V=V, P=P, number=number))


class BareCalls:
    """Calls of f without a graph, then calls with one and its vector-Jacobian product for y and the parameters.

    They are the floor of a gradient that makes as many: one step of s stages, by symplectic, is BareCalls(problem,
    f_calls=2 * s - 1, vjps=s). They are made within its context, in which the parameters already have gradients, so
    that autograd adds to them in place.
    """

    def __init__(self, problem: Problem, f_calls: int = 0, vjps: int = 0) -> None:
        self.problem, self.func, self.t = problem, problem.fields[0], problem.t[0].to(problem.y0)
        self.f_calls, self.vjps = f_calls, vjps
        self.y = problem.y0.detach().clone().requires_grad_()
        self.cotangent = torch.ones_like(self.y)

    def __enter__(self) -> Self:
        for parameter in self.problem.parameters:
            parameter.grad = torch.zeros_like(parameter)
        return self

    def __exit__(self, *_: object) -> None:
        self.problem.clear_gradients()

    def __call__(self) -> None:
        with torch.no_grad():
            for _ in range(self.f_calls):
                self.func(self.t, self.y)
        for _ in range(self.vjps):
            torch.autograd.backward(self.func(self.t, self.y), self.cotangent)
            self.y.grad = None

    def captured(self) -> Callable[[], None]:
        """Return a function that makes the calls by replaying one CUDA graph, within the same context.

        Raise what torch raises if f cannot be captured; the process may be of no use for CUDA afterwards.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(CALLS_BEFORE_CAPTURE):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self()
        return graph.replay


CALLS_BEFORE_CAPTURE = 3
"""Rounds after which libraries have made their handles, workspaces and choices of kernels."""


def _graph_of_f(problem: Problem) -> object:
    """Return the graph of one f, at a state that nothing else references."""
    Y = problem.y0.clone()  # not a leaf: its gradient accumulator would keep it alive
    return problem.fields[0](problem.t[0].to(problem.y0), Y).grad_fn


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
