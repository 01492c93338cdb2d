"""The layer that captures a program: a CUDA graph on a card, nothing elsewhere.

A program is a function of no arguments that reads and writes static buffers only. It knows nothing of CUDA.
"""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from symplectic_adjoint._torch_internals import end_allocation_to_pool
from symplectic_adjoint.field.capturable import Body, translated

X = TypeVar("X")


class Graphs(Protocol):
    """Records programs for one device. Programs of one object never run at the same time: they share memory."""

    @property
    def runs_python(self) -> bool:
        """Whether a recorded program calls the function itself each time."""
        ...

    def aside(self) -> Any:
        """Return a context in which to run a program once and then record it."""
        ...

    def record(self, body: Body) -> Body | None:
        """Return a function that repeats the operations of body; None if body itself is to be called each time.

        Call this within aside.
        """
        ...

    def enter(self) -> None:
        """Order what follows in the current stream after the last use in another one."""
        ...

    def leave(self) -> None:
        """Note the end of a use in the current stream."""
        ...


class NoGraphs:
    """No capturing, as on the CPU: programs are called."""

    runs_python = True

    def aside(self) -> Any:
        return nullcontext()

    def record(self, body: Body) -> Body | None:
        del body

    def enter(self) -> None: ...

    def leave(self) -> None: ...


class Loans(Generic[X]):
    """Things that are lent to one user at a time; another is made only if all are lent.

    No lock is held during a loan: who has one may wait for another thread that wants one.
    """

    def __init__(self, make: Callable[[], X]):
        self._make, self._free, self._lock = make, list[X](), Lock()

    @contextmanager
    def one(self) -> Iterator[X]:
        """Lend one for the block: the one that came back last, if there is any."""
        with self._lock:
            lent = self._free.pop() if self._free else None
        lent = self._make() if lent is None else lent
        try:
            yield lent
        finally:
            with self._lock:
                self._free.append(lent)


class SharedOrder:
    """What all graphs of a device share: the streams that they are captured in, and the order of their replays.

    cuBLAS keeps a workspace, of 32 MiB on some cards, for every stream that it was used in, and a graph writes to that
    of the stream that it was captured in. So there are as few such streams as possible, and of the graphs that share
    them one is replayed at a time.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self.sides = Loans(lambda: torch.cuda.Stream(device))
        self._lock = Lock()
        self._end: Any = None
        self._stream: Any = None

    def replay(self, graph: torch.cuda.CUDAGraph) -> None:
        """Replay a graph in the current stream, after the last replay in any stream."""
        current = torch.cuda.current_stream(self._device)
        with self._lock:
            if self._end is None:
                self._end = torch.cuda.Event()
            elif current != self._stream:
                current.wait_event(self._end)
            graph.replay()
            self._end.record(current)
            self._stream = current


order_on = functools.cache(SharedOrder)
"""(device) -> the order of its graphs."""


class CudaGraphs:
    """CUDA graphs in one private memory pool."""

    runs_python = False

    def __init__(self, device: torch.device):
        self._device, self._order = device, order_on(device)
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._last_use: Any = None
        self._last_stream: Any = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Use a stream in which a program may be captured, which the default one is not."""
        current = torch.cuda.current_stream(self._device)
        with self._order.sides.one() as side:
            side.wait_stream(current)
            try:
                with torch.cuda.stream(side):
                    yield
            finally:
                current.wait_stream(side)

    def record(self, body: Body) -> Body | None:
        """Return the replay of body, as a CUDA graph. Raises NotCapturable or torch.cuda.OutOfMemoryError.

        In thread_local mode other threads, such as one that pins memory for a data loader, may go on. Cyclic garbage is
        not collected meanwhile: freeing another graph would end the capture.
        """
        graph = torch.cuda.CUDAGraph()
        with _garbage_kept():
            try:
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                body()
                graph.capture_end()
            except BaseException as error:
                self._abandon(graph)
                if isinstance(error, RuntimeError) and not isinstance(error, torch.cuda.OutOfMemoryError):
                    raise translated(error) from error
                raise
        return functools.partial(self._order.replay, graph)

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture that failed, so that memory can be allocated and random numbers drawn again.

        If an operation was refused, torch leaves its allocator and the generator as they are during a capture.
        """
        try:
            graph.capture_end()
        except RuntimeError:
            index = torch.cuda.current_device()
            generator = torch.cuda.default_generators[index]
            generator.graphsafe_set_state(generator.clone_state())
            try:
                end_allocation_to_pool(index, self._pool)
            except RuntimeError:  # it had ended
                return

    def enter(self) -> None:
        current = torch.cuda.current_stream(self._device)
        if self._last_use is not None and current != self._last_stream:
            current.wait_event(self._last_use)

    def leave(self) -> None:
        self._last_stream = torch.cuda.current_stream(self._device)
        self._last_use = self._last_stream.record_event()


@contextmanager
def _garbage_kept() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def may_capture_on(y: Tensor) -> bool:
    """Return whether capture="auto" may capture a solve of states like y: only where that is faster."""
    return y.is_cuda


def graphs_for(device: torch.device) -> Graphs:
    """Return what records programs on this device."""
    return CudaGraphs(device) if device.type == "cuda" else NoGraphs()
