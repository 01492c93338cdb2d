"""Graphs with hooks are freed by recursion, for which a thread has a stack that is large enough."""

import subprocess
import sys
import threading

import pytest
import torch

from symplectic_bench.measure.large_stack import on_large_stack
from tests.clone import PYTHONPATH

PROGRAM = """
import torch
from symplectic_bench.measure.large_stack import on_large_stack

def count_vjps():
    calls = []
    x = torch.ones(1, requires_grad=True)
    for _ in range(100_000):
        x = x * 1.0
        x.register_hook(calls.append)
    x.sum().backward()
    return len(calls)

print(on_large_stack(count_vjps))
"""


def test_a_graph_of_100_000_calls_with_hooks_is_freed():
    """In a process of its own, which too small a stack would end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={"PYTHONPATH": PYTHONPATH}
    )
    assert (done.returncode, done.stdout.strip()) == (0, "100000")


@pytest.mark.parametrize("threads", [1, 2])
def test_operators_use_as_many_threads_as_before(threads):
    """In a process forked from one that has computed, OpenMP waits forever for more than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert on_large_stack(torch.get_num_threads) == threads
    finally:
        torch.set_num_threads(before)


def test_errors_come_back_and_other_threads_have_their_own_size():
    before = threading.stack_size()
    with pytest.raises(ZeroDivisionError):
        on_large_stack(lambda: 1 / 0)
    assert threading.stack_size() == before
