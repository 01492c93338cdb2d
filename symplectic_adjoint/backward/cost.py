"""The measured cost of one f call and its vector-Jacobian product, from which costs are predicted."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from symplectic_adjoint._torch_internals import profiler_is_running
from symplectic_adjoint.backward.parameter_sums import parameter_sums
from symplectic_adjoint.errors import UnsupportedCombination
from symplectic_adjoint.field.autocast import autocast_is_on
from symplectic_adjoint.field.few_launches import is_small
from symplectic_adjoint.field.grad_mode import own_graphs
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.host_reads import is_capturing
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.lost_gradients import Unknown
from symplectic_adjoint.field.module_tensors import module_tensors_in, values_restored
from symplectic_adjoint.field.traced_function import cache_owner
from symplectic_adjoint.memory.allocator import watch_memory
from symplectic_adjoint.solve.problem import Problem


@dataclass(frozen=True)
class CallCost:
    """The symbols of the memory formulas, in bytes, and times in seconds.

    state_bytes (D): one state.
    parameter_bytes (P): the parameters that need a gradient.
    graph_bytes (A): the memory that the graph of one f call keeps live for its vector-Jacobian product (VJP), including
        the state at which f was called, excluding the value of f.
    saved_bytes: the same, if only the graph refers to that state, as when the whole solve is on one graph.
    vjp_peak_bytes (V): peak of one f call and its VJP, above the state, the cotangent and the sums of dL/dtheta.
    separate_peak_bytes (W): the same, if torch.autograd.grad returns the terms of dL/dtheta, as for a held graph.
    linearize_peak_bytes, call_peak_bytes: peak of one f call alone, with a graph and without, above the state.
    call_s, vjp_s: one f call on the graph, and its VJP.
    """

    state_bytes: int
    parameter_bytes: int
    graph_bytes: int
    saved_bytes: int
    vjp_peak_bytes: int
    separate_peak_bytes: int
    linearize_peak_bytes: int
    call_peak_bytes: int
    call_s: float
    vjp_s: float
    sums_together: bool = False
    """Whether the sums of a step are all formed at once, to save launches: see steps/pushed_sums.py."""


REPEATS = 3
"""Number of timed calls. The first calls of a func are slow."""

_KNOWN: WeakKeyDictionary[Any, dict[Any, CallCost]] = WeakKeyDictionary()
"""Measured costs, by func's module or code, then by everything else that the cost depends on."""


def call_cost(problem: Problem, y0: Tensor, *, with_time: bool) -> CallCost:
    """Return the cost of one f call, measured once for each func and kind of state with a few extra calls.

    The random number generators and the buffers are restored afterwards.

    Raises UnsupportedCombination on the CPU if torch's profiler, which does the measuring, is already running, and
    while a CUDA stream is captured.
    """
    device = y0.device.type
    autocast = autocast_is_on(device)
    params = tuple((p.shape, p.dtype) for p in problem.parameters.trainable)
    with problem.lock:
        known = _KNOWN.setdefault(cache_owner(problem.caller), {})
        modes = tuple(m.training for m in problem.reach.modules)
        key = (y0.shape, y0.stride(), y0.dtype, y0.device, with_time, params, modes, autocast)
        if key not in known:
            known[key] = _measure(problem, y0, with_time)
        return known[key]


def _require_measurable(y0: Tensor) -> None:
    """Raise UnsupportedCombination if a call cannot be measured now."""
    if is_capturing(y0.device):
        raise UnsupportedCombination(
            'gradient="auto" measures one f call, which it cannot while a CUDA stream is captured: solve once before '
            "the capture, with y0 of the same shape (the measurement is kept), or use another gradient, such as "
            '"symplectic"'
        )
    if y0.device.type == "cpu" and profiler_is_running():
        raise UnsupportedCombination(
            'gradient="auto" measures one f call with torch\'s profiler, which is already running: solve once before '
            'you start it (the measurement is kept), or use another gradient, such as "symplectic"'
        )


def _measure(problem: Problem, y0: Tensor, with_time: bool) -> CallCost:
    _require_measurable(y0)
    f = replace(problem, forward_state=None).field(y0)
    buffers = [x for m in problem.reach.modules for x in module_tensors_in(m._buffers)]
    t, w, device = problem.times[0], torch.ones_like(y0), y0.device
    linearizations: list[Linearization] = []
    edges: list[GradientEdge] = []
    devices = [device] if device.type == "cuda" else []
    with own_graphs(), torch.random.fork_rng(devices=devices), values_restored(buffers):
        f.search.start(Unknown.ADOPT)
        with f.forward_state.first_pass(), torch.no_grad():
            f(t, y0)
        with f.forward_state.reinstated(), parameter_sums(f, w) as sums:

            def call(Y: Tensor) -> None:
                linearizations.append(f.linearize(t, Y, with_time=with_time, with_value=True))
                linearizations[-1].k = None

            def save() -> None:
                with torch.enable_grad():
                    k = f(t, y0.detach().requires_grad_() * 1.0)  # the product by a number saves nothing
                edges.append(edge_to(k))

            def transpose() -> None:
                f.transpose(linearizations.pop(), w, sums.pull)

            def pull_separately() -> None:
                linearization = linearizations.pop()
                if linearization.edge is not None:
                    f.pull((linearization.edge,), (*linearization.inputs, *f.leaves), (w,))

            times = [(_seconds(device, lambda: call(y0)), _seconds(device, transpose)) for _ in range(REPEATS)]
            on_graph, vjp = watch_memory(device.type, lambda: call(y0), transpose)
            (saved,) = watch_memory(device.type, save)
        with f.forward_state.reinstated():
            with torch.no_grad():
                (without_graph,) = watch_memory(device.type, lambda: f(t, y0))
            _, separate = watch_memory(device.type, lambda: call(y0), pull_separately)
        with torch.no_grad():
            sums_together = is_small(y0)
    state = max(1, y0.numel() * y0.element_size())  # an empty state is free: never divide by 0
    return CallCost(
        state_bytes=state,
        parameter_bytes=sum(p.numel() * p.element_size() for p in f.params),
        graph_bytes=on_graph.left_bytes + state,
        saved_bytes=saved.left_bytes,
        vjp_peak_bytes=max(on_graph.peak_bytes, vjp.peak_bytes),
        separate_peak_bytes=separate.peak_bytes,
        linearize_peak_bytes=on_graph.peak_bytes,
        call_peak_bytes=without_graph.peak_bytes,
        call_s=min(call_s for call_s, _ in times),
        vjp_s=min(vjp_s for _, vjp_s in times),
        sums_together=sums_together,
    )


def _seconds(device: torch.device, work: Callable[[], None]) -> float:
    start = _now(device)
    work()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
