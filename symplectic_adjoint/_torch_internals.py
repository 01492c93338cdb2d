"""Every private name of torch that the library uses, each under a name that says what it is for.

All of them are expected to exist in torch 2.11 to 2.13: the tests check 2.13, and solves and gradients have run on
2.11, except compile=True, which needs 2.13. A later version may drop any of them without notice. If the public
interface can do the same, it is the fallback, and only speed is lost. If it cannot, a guess could give a wrong gradient
or silently end the user's profile, so the name is required: importing the library raises an ImportError with the name
and the version of torch. Only compile=True needs the compiler's names; they are looked up when it is used, because
importing the compiler takes a second.

Private *attributes* of tensors, modules and graph nodes are read where they are needed: calling a function to read one
would cost more than the read. The constants named *_ATTRIBUTES list them.
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pkgutil import resolve_name
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad, profiler

REQUIRED: list[str] = []
"""Names without a fallback, as "module:attribute"."""

OPTIONAL: list[str] = []
"""Names with a fallback."""

TENSOR_ATTRIBUTES = ("_version", "_backward_hooks")
"""The count of in-place writes (described in torch's autograd notes), and the hooks of a leaf."""

MODULE_ATTRIBUTES = ("_parameters", "_buffers", "_modules")
"""What a module holds by name: the public iterators skip duplicates and None, and cannot write."""

NODE_ATTRIBUTES = ("_sequence_nr", "_input_metadata")
"""The order in which a thread created its nodes (see nodes_made), and the dtypes of their results."""

OPERATOR_ATTRIBUTES = ("_schema",)
"""The names and defaults of an operator's arguments."""


def _find(name: str) -> Any:
    try:
        return resolve_name(name)
    except (ImportError, AttributeError) as error:
        message = (
            f"symplectic_adjoint needs {name.replace(':', '.')}, a private name that torch {torch.__version__} lacks"
        )
        raise ImportError(f"{message}: install a torch from 2.11 to 2.13, or a newer symplectic_adjoint") from error


def _required(name: str) -> Any:
    REQUIRED.append(name)
    return _find(name)


def _optional(name: str, fallback: Any) -> Any:
    OPTIONAL.append(name)
    try:
        return resolve_name(name)
    except (ImportError, AttributeError):
        return fallback


# ---- graphs and the engine ----


def _public_backward(
    outputs: Sequence[Any],
    cotangents: Sequence[Tensor],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    *,
    allow_unreachable: bool,
    accumulate_grad: bool,
) -> Any:
    if accumulate_grad:
        return torch.autograd.backward(outputs, cotangents, retain_graph, create_graph, inputs=inputs)
    return torch.autograd.grad(outputs, inputs, cotangents, retain_graph, create_graph, allow_unused=allow_unreachable)


run_backward: Callable[..., Any] = _optional("torch.autograd:Variable._execution_engine.run_backward", _public_backward)
"""torch.autograd.grad and backward without their checks, which take a fifth of the time of a small network's VJP.

Fallback: torch.autograd.grad or, with accumulate_grad, torch.autograd.backward.
"""

nodes_made: Callable[[], int] = _required("torch._C._autograd:_get_sequence_nr")
"""The number of graph nodes that autograd has created in this thread: two reads give a graph's size. Required."""

PythonNode: type = _optional("torch._C:_FunctionBase", object)
"""The class of the graph nodes of Python Functions: an edge to such a node must own it.

Fallback: object, so that every node counts as one. An edge that owns its node is always correct, but slower to create.
"""

set_grad_enabled: Callable[[bool], Any] = _optional("torch._C:_set_grad_enabled", torch.set_grad_enabled)
"""Set grad mode: the context managers take as long as an operation on a small state.

Fallback: torch.set_grad_enabled, which takes effect as soon as it is called.
"""

top_saved_tensors_hooks: Callable[[bool], Any] = _optional(
    "torch._C._autograd:_top_saved_tensors_default_hooks", lambda ignore_is_tracing: ()
)
"""The hooks of torch.autograd.graph.saved_tensors_hooks in force in this thread, None if there are none.

Fallback: (), as if there were some.
"""


def _add_one_by_one(totals: Sequence[Tensor], parts: Sequence[Tensor], *, alpha: float = 1) -> None:
    for total, part in zip(totals, parts, strict=True):
        total.add_(part, alpha=alpha)


foreach_add_: Callable[..., None] = _optional("torch:_foreach_add_", _add_one_by_one)
"""Add alpha times each part to its total, in place and in few kernels. Fallback: one addition per tensor."""

Tensors = Sequence[Tensor]


def _copy_one_by_one(totals: Tensors, parts: Tensors) -> None:
    for total, part in zip(totals, parts, strict=True):
        total.copy_(part)


foreach_copy_: Callable[..., None] = _optional("torch:_foreach_copy_", _copy_one_by_one)
"""Copy each part to its total in few kernels. Fallback: one copy per tensor."""


def _zero_one_by_one(xs: Tensors) -> None:
    for x in xs:
        x.zero_()


foreach_zero_: Callable[..., None] = _optional("torch:_foreach_zero_", _zero_one_by_one)
"""Set tensors to zero in few kernels. Fallback: one operation per tensor."""


def _addcmul_one_by_one(totals: Tensors, a: Tensors, b: Tensors, values: Sequence[float]) -> list[Tensor]:
    return [torch.addcmul(*x, value=value) for *x, value in zip(totals, a, b, values, strict=True)]


def _addcmul_one_by_one_(totals: Tensors, a: Tensors, b: Tensors, values: Sequence[float]) -> None:
    for total, x, y, value in zip(totals, a, b, values, strict=True):
        total.addcmul_(x, y, value=value)


foreach_addcmul: Callable[..., Sequence[Tensor]] = _optional("torch:_foreach_addcmul", _addcmul_one_by_one)
"""Return each total + value a b as a new tensor, in few kernels. Fallback: one operation per tensor."""

foreach_addcmul_: Callable[..., None] = _optional("torch:_foreach_addcmul_", _addcmul_one_by_one_)
"""Add value a b to each total, in place and in few kernels. Fallback: one operation per tensor."""

foreach_abs: Callable[[Tensors], Sequence[Tensor]] = _optional("torch:_foreach_abs", lambda xs: [x.abs() for x in xs])
"""Return the absolute value of each tensor, in few kernels. Fallback: one operation per tensor."""

_preserving_version: Any = _optional("torch.autograd.grad_mode:_unsafe_preserve_version_counter", None)


def copy_keeping_version(x: Tensor, value: Tensor) -> None:
    """Copy value into x without marking x as changed for a graph that saved it. Fallback: x.data."""
    if _preserving_version is None:
        x.data.copy_(value)
        return
    with _preserving_version(x):
        x.copy_(value)


end_allocation_to_pool: Callable[..., None] = _optional("torch._C:_cuda_endAllocateToPool", lambda *_: None)
"""End allocating to the pool of a CUDA graph whose capture failed. Fallback: the pool stays in use."""

DispatchMode: Any = _required("torch.utils._python_dispatch:TorchDispatchMode")
"""The base class of modes that see every operation. Required."""

subclasses_are_heard: Callable[[], bool] = _required("torch._C:_is_torch_function_enabled")
"""Whether operations on tensors of subclasses go through their __torch_function__. Required."""

EnableTorchFunction: Any = _required("torch._C:_EnableTorchFunction")
"""A context in which they do, though torch itself was called with such a tensor. Required."""

hooks_on_all_modules: Any = _optional("torch.nn.modules.module:_global_forward_pre_hooks", True)
"""The hooks called before every module, as FlopCounterMode sets them. Fallback: true, as if there were some."""

# ---- torch.func and forward mode ----

functorch_is_active: Callable[[], bool] = _required("torch._C:_are_functorch_transforms_active")
"""Whether a transform of torch.func (grad, vjp, jvp, vmap ...) is running. Required."""

is_batched: Callable[[Tensor], bool] = _required("torch._C._functorch:is_batchedtensor")
"""Whether a tensor is wrapped by torch.func.vmap. Required."""

is_legacy_batched: Callable[[Tensor], bool] = _required("torch._C._functorch:is_legacy_batchedtensor")
"""Whether a tensor is wrapped by the vmap behind torch.autograd.grad(..., is_grads_batched=True). Required."""

is_wrapped: Callable[[Tensor], bool] = _required("torch._C._functorch:is_functorch_wrapped_tensor")
"""Whether a tensor is wrapped by any transform of torch.func. Required."""

unwrapped: Callable[[Tensor], Tensor] = _required("torch._C._functorch:get_unwrapped")
"""The tensor inside one level of wrapping. Required."""

OPTIONAL.append("torch.autograd.forward_ad:_current_level")


def forward_mode_is_active() -> bool:
    """Return whether a forward-mode level is open. Fallback: try to open one, since levels cannot be nested."""
    level = getattr(forward_ad, "_current_level", None)  # an int that is rebound whenever a level opens or closes
    if level is not None:
        return level >= 0
    try:
        level = forward_ad.enter_dual_level()
    except RuntimeError:
        return True
    forward_ad.exit_dual_level(level=level)
    return level > 0


# ---- tensors without values ----

_FakeTensor: Any = _optional("torch._subclasses.fake_tensor:FakeTensor", ())
_get_proxy_mode: Any = _optional("torch.fx.experimental.proxy_tensor:get_proxy_mode", lambda: None)


def is_fake(x: Any) -> bool:
    """Return whether x is a fake tensor, which has a device but no values. Fallback: False; torch refuses it later."""
    return isinstance(x, _FakeTensor)


is_jit_tracing: Callable[[], bool] = _required("torch.jit:is_tracing")
"""Whether torch.jit.trace is at work. Public, though not exported. Required."""


def records_operations() -> bool:
    """Return whether torch records operations instead of calculating: torch.export, make_fx, FakeTensorMode.

    Fallback: False where it cannot be told; torch then refuses the first read of a value.
    """
    exporting = torch.compiler.is_exporting() or _get_proxy_mode() is not None
    return exporting or is_fake(torch.empty(0, device="cpu"))


# ---- the profiler ----

profiler_is_running: Callable[[], bool] = _required("torch._C._autograd:_profiler_enabled")
"""Whether a profile is being taken in this thread: starting another would silently end it. Required."""

_PROFILER = tuple(
    _optional(name, None)
    for name in (
        "torch._C._autograd:_prepare_profiler",
        "torch._C._autograd:_enable_profiler",
        "torch._C._autograd:_disable_profiler",
        "torch._C._profiler:ProfilerActivity",
        "torch._C._profiler:ProfilerConfig",
        "torch._C._profiler:ProfilerState",
        "torch._C._profiler:RecordScope",
        "torch._C._profiler:_ExperimentalConfig",
    )
)


class ProfilerEvent(NamedTuple):
    """A mark, or an allocation or release (negative nbytes) of the memory block at an address."""

    name: str
    start_ns: int
    end_ns: int
    address: int
    nbytes: int


def _events_in(result: Any) -> Iterator[ProfilerEvent]:
    """Yield the marks, allocations and releases of a profile."""
    left = result.experimental_event_tree()[::-1]
    while left:
        event = left.pop()
        left += event.children[::-1]
        address, nbytes = 0, 0
        if event.name == "[memory]":
            address, nbytes = event.extra_fields.ptr, event.extra_fields.alloc_size
        yield ProfilerEvent(event.name, event.start_time_ns, event.end_time_ns, address, nbytes)


@contextmanager
def _events_of_scopes() -> Iterator[list[ProfilerEvent]]:
    prepare, enable, disable, Activity, Config, State, Scope, ExperimentalConfig = _PROFILER
    config = Config(
        State.KINETO,
        False,  # record_shapes
        True,  # profile_memory
        False,  # with_stack
        False,  # with_flops
        False,  # with_modules
        ExperimentalConfig(),
        "",  # trace_id
    )
    with _quiet_profiler():
        prepare(config, {Activity.CPU})
    enable(config, {Activity.CPU}, {Scope.USER_SCOPE})  # the scope of record_function, without that of operators
    events: list[ProfilerEvent] = []
    try:
        yield events
    finally:
        events += _events_in(disable())


@contextmanager
def _events_of_profile() -> Iterator[list[ProfilerEvent]]:
    profile = profiler.profile(profile_memory=True)
    with _quiet_profiler():
        profile.__enter__()
    events: list[ProfilerEvent] = []
    try:
        yield events
    finally:
        profile.__exit__(None, None, None)
        assert profile.kineto_results is not None
        events += _events_in(profile.kineto_results)


allocation_events: Callable[[], AbstractContextManager[list[ProfilerEvent]]] = (
    _events_of_profile if None in _PROFILER else _events_of_scopes
)
"""Record the CPU's allocations and releases, and record_function's marks, in a list that is filled at the end.

Fallback: torch.autograd.profiler.profile, which also records every operator, at three times the time and memory.
"""

_LOG_LEVEL = "KINETO_LOG_LEVEL"


@contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep the profiler, which reads this variable at its first use, from reporting each start and stop on stderr."""
    given = os.environ.get(_LOG_LEVEL)
    os.environ.setdefault(_LOG_LEVEL, "6")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_LOG_LEVEL]


WARNING, ERROR = 1, 2
"""Levels of the log that torch's C++ code writes to stderr. The first is torch's default."""


def log_level() -> ctypes.c_int:
    """Return the least level of what torch's C++ code logs: a variable that takes effect at once.

    Fallback: a variable without effect.
    """
    try:
        return ctypes.c_int.in_dll(ctypes.CDLL(torch._C.__file__), "FLAGS_caffe2_log_level")
    except (OSError, ValueError):
        return ctypes.c_int(WARNING)


# ---- torch.compile around the library ----

_TRACER = tuple(
    _optional(name, None)
    for name in (
        "torch._C._dynamo.eval_frame:set_code_exec_strategy",
        "torch._C._dynamo.eval_frame:_FrameExecStrategy",
        "torch._C._dynamo.eval_frame:_FrameAction",
    )
)

_WHY_UNTRACED = (
    "symplectic_adjoint solves outside of compiled graphs, so fullgraph=True does not work around a solve: leave it "
    "out, or compile func (torch.compile(func), or compile=True in the solve)"
)

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """Mark a function: torch.compile breaks the graph there, and runs it and all that it calls as they are written.

    A traced solve would be specialised to every number in it, and rounded otherwise. What was compiled itself, func for
    example, is compiled inside too. Fallback: torch.compiler.disable, which does the same and takes a second to import.
    """
    set_strategy, Strategy, Action = _TRACER
    if None in _TRACER:
        return cast(F, torch.compiler.disable(function, reason=_WHY_UNTRACED))
    set_strategy(function.__code__, Strategy(Action.SKIP, Action.SKIP))  # this frame, and those that it calls
    vars(function).update(_torchdynamo_disable=True, _torchdynamo_disable_msg=_WHY_UNTRACED)
    return function


# ---- the compiler ----

COMPILER = (
    "torch._dynamo:config",
    "torch._dynamo.exc:FailOnRecompileLimitHit",
    "torch._dynamo.exc:TorchDynamoException",
    "torch._inductor:compile",
    "torch._inductor.cpp_builder:get_cpp_compiler",
)
"""Names that only compile=True needs."""


def require_compiler_names() -> None:
    """Raise ImportError if one of the names in COMPILER is missing."""
    for name in COMPILER:
        _find(name)


def compiler_config() -> Any:
    """Return the settings of torch.compile's tracer. `trace_autograd_ops` takes effect from torch 2.13 on."""
    return _find("torch._dynamo:config")


def compiler_errors() -> tuple[type[Exception], type[Exception]]:
    """Return the error raised at the recompilation limit, and the base class of all errors of the tracer."""
    return _find("torch._dynamo.exc:FailOnRecompileLimitHit"), _find("torch._dynamo.exc:TorchDynamoException")


def compile_graph(graph: torch.fx.GraphModule, examples: list[Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Return inductor's code of a traced graph, for inputs like the examples."""
    return _find("torch._inductor:compile")(graph, examples, options=options)


def find_cpp_compiler() -> str:
    """Return the command of the C++ compiler that inductor would use. Raises torch's own error if there is none."""
    return _find("torch._inductor.cpp_builder:get_cpp_compiler")()
