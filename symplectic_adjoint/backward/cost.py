"""What one call of f and its vector-Jacobian product take, measured: what costs are predicted from."""

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
from symplectic_adjoint.field.compiled import cache_owner
from symplectic_adjoint.field.graph import edge_to
from symplectic_adjoint.field.linearization import Linearization
from symplectic_adjoint.field.module_tensors import module_tensors_in, values_restored
from symplectic_adjoint.memory.allocator import watch_memory
from symplectic_adjoint.solve.problem import Problem


@dataclass(frozen=True)
class CallCost:
    """The symbols of the memory formulas, in bytes, and times in seconds.

    state_bytes (D): one state. parameter_bytes (P): the parameters that have a gradient. graph_bytes (A): what stays
    live of one f for its vector-Jacobian product, the state at which f was called included, f's value not.
    saved_bytes: the same where nobody but the graph holds that state, as in a solve that is on one graph.
    vjp_peak_bytes (V): the most live at once in one f and its product, above the state, the cotangent and the sums
    that the parameters' parts are added to. parted_peak_bytes (W): the same where torch.autograd.grad hands out these
    parts, as it does for a graph that was held. graphed_peak_bytes, plain_peak_bytes: the most live in one f alone, on
    the graph and not, above the state. call_s, vjp_s: f on the graph, and the product.
    """

    state_bytes: int
    parameter_bytes: int
    graph_bytes: int
    saved_bytes: int
    vjp_peak_bytes: int
    parted_peak_bytes: int
    graphed_peak_bytes: int
    plain_peak_bytes: int
    call_s: float
    vjp_s: float


REPEATS = 3
"""Calls that are timed: the first ones of a func are slow."""

_KNOWN: WeakKeyDictionary[Any, dict[Any, CallCost]] = WeakKeyDictionary()
"""By func's module or code, and what tells one call from another."""


def call_cost(problem: Problem, y0: Tensor, *, with_time: bool) -> CallCost:
    """Measured once for a func and states of one kind, by a few calls besides those of the solve.

    They leave nothing behind: neither random numbers drawn nor buffers changed.
    """
    known = _KNOWN.setdefault(cache_owner(problem.caller), {})
    params = tuple((p.shape, p.dtype) for p in problem.parameters.trainable)
    modes = tuple(m.training for m in problem.parameters.all_modules)
    autocast = torch.is_autocast_enabled(y0.device.type) if torch.amp.is_autocast_available(y0.device.type) else False
    key = (y0.shape, y0.stride(), y0.dtype, y0.device, with_time, params, modes, autocast)
    if key not in known:
        known[key] = _measured(problem, y0, with_time)
    return known[key]


def _measured(problem: Problem, y0: Tensor, with_time: bool) -> CallCost:
    if y0.device.type == "cpu" and profiler_is_running():
        raise UnsupportedCombination(
            'gradient="auto" measures one f call with torch\'s profiler, which is running already: solve once before '
            'you start it (the measurement is kept), or take another gradient, such as "symplectic"'
        )
    f = replace(problem, forward_state=None).field(y0)
    buffers = [slot for m in problem.parameters.all_modules for slot in module_tensors_in(m._buffers)]
    t, w, device = problem.times[0], torch.ones_like(y0), y0.device
    ones: list[Linearization] = []
    edges: list[GradientEdge] = []
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), f.forward_state.lock, values_restored(buffers):
        f(t, y0)
        f.forward_state.finish()
        with f.forward_state.reinstated(), parameter_sums(f, w) as sums:

            def call(Y: Tensor) -> None:
                ones.append(f.linearize(t, Y, with_time=with_time, with_value=True))
                ones[-1].k = None

            def save() -> None:
                with torch.enable_grad():
                    k = f(t, y0.detach().requires_grad_() * 1.0)  # which itself saves nothing
                edges.append(edge_to(k))

            def transpose() -> None:
                f.transpose(ones.pop(), w, sums.pull)

            def pull(one: Linearization) -> None:
                if one.edge is not None:
                    f.pull((one.edge,), (*one.inputs, *f.params), (w,))

            times = [(_seconds(device, lambda: call(y0)), _seconds(device, transpose)) for _ in range(REPEATS)]
            there, back = watch_memory(device.type, lambda: call(y0), transpose)
            (saved,) = watch_memory(device.type, save)
        with f.forward_state.reinstated():
            (plain,) = watch_memory(device.type, lambda: f(t, y0))
            _, parted = watch_memory(device.type, lambda: call(y0), lambda: pull(ones.pop()))
    state = max(1, y0.numel() * y0.element_size())  # an empty one costs nothing, and fits however often
    return CallCost(
        state_bytes=state,
        parameter_bytes=sum(p.numel() * p.element_size() for p in f.params),
        graph_bytes=there.left_bytes + state,
        saved_bytes=saved.left_bytes,
        vjp_peak_bytes=max(there.peak_bytes, back.peak_bytes),
        parted_peak_bytes=parted.peak_bytes,
        graphed_peak_bytes=there.peak_bytes,
        plain_peak_bytes=plain.peak_bytes,
        call_s=min(there for there, _ in times),
        vjp_s=min(back for _, back in times),
    )


def _seconds(device: torch.device, work: Callable[[], None]) -> float:
    start = _now(device)
    work()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
