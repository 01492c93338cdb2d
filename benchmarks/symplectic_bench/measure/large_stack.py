"""A stack for graphs that are freed by deep recursion."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

LARGE_STACK_BYTES = 512 * 2**20
"""Of addresses, which take memory only where the stack reaches."""


def on_large_stack(function: Callable[[], T]) -> T:
    """Return what the function returns or raise what it raises, called by a thread with a large stack.

    torch frees a graph without recursion, unless its tensors have hooks, as those that count have: then 100,000 steps
    overflow the stack of the main thread.
    """
    before, threads = threading.stack_size(LARGE_STACK_BYTES), torch.get_num_threads()

    def with_as_many_threads() -> T:
        torch.set_num_threads(threads)  # else OpenMP starts as many as there are cores, which hangs in a forked process
        return function()

    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(with_as_many_threads).result()
    finally:
        threading.stack_size(before)
