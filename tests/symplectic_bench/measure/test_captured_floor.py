"""The bare calls in a CUDA graph, without CUDA: a stand-in runs what is captured, and counts the replays."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.measure import wall_time
from symplectic_bench.measure.floor import CALLS_BEFORE_CAPTURE, BareCalls
from symplectic_bench.problems import PROBLEMS


@pytest.fixture
def problem():
    """Return a problem whose func counts its calls."""
    built = PROBLEMS["mlp"].build({"width": 8}, 5, "float64")
    counted = CountedField(built.func)
    return SimpleNamespace(
        fields=(counted,),
        counted=counted,
        t=built.t,
        y0=built.y0,
        parameters=built.parameters,
        clear_gradients=built.clear_gradients,
    )


@pytest.fixture
def cuda(monkeypatch):
    """Stand-ins for torch's streams and graphs. Whatever happens is written down."""
    happened = []

    class Stream:
        def wait_stream(self, other):
            happened.append("wait")

    class Graph:
        def replay(self):
            happened.append("replay")

    @contextlib.contextmanager
    def graph(graph, stream, capture_error_mode):
        assert isinstance(graph, Graph) and isinstance(stream, Stream) and capture_error_mode == "thread_local"
        happened.append("begin")
        yield
        happened.append("end")

    for name, stand_in in {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    return happened


@pytest.mark.parametrize(("f_calls", "vjps"), [(7, 4), (0, 1), (3, 0)])
def test_it_makes_the_calls_and_adds_the_gradients_in_place(problem, f_calls, vjps):
    with BareCalls(problem, f_calls, vjps) as calls:
        before = [p.grad for p in problem.parameters]
        calls()
        assert problem.counted.calls == [f_calls + vjps, 0] and problem.counted.vjps == [vjps, 0]
        assert [p.grad is grad for p, grad in zip(problem.parameters, before, strict=True)] == [True] * len(before)
        (one,) = torch.autograd.grad(calls.func(calls.t, calls.y).sum(), problem.parameters[:1])
        torch.testing.assert_close(before[0], vjps * one)
        assert calls.y.grad is None
    assert all(p.grad is None for p in problem.parameters)


def test_a_replay_makes_the_calls_of_a_step_without_calling_f(problem, cuda):
    s = 4
    with BareCalls(problem, 2 * s - 1, s) as calls:
        replay = calls.captured()
        assert cuda == ["wait", "wait", "begin", "end"]
        assert problem.counted.calls[0] == (CALLS_BEFORE_CAPTURE + 1) * (3 * s - 1)
        assert problem.counted.vjps[0] == (CALLS_BEFORE_CAPTURE + 1) * s
        replay()
        assert cuda[-1] == "replay" and problem.counted.calls[0] == (CALLS_BEFORE_CAPTURE + 1) * (3 * s - 1)


def test_captured_calls_are_timed_by_their_replays(problem, cuda, monkeypatch):
    times = iter([4.0, 2.0, 3.0, 9.0, 1.0, 8.0, 7.0] + [40.0] * 7)  # whose median is 4
    monkeypatch.setattr(wall_time, "seconds", lambda call, device: call() or next(times))
    found = wall_time.captured_call_times(problem)
    # 10 replays of 10 calls between two readings
    assert found == {"f_call_captured_s": 0.04, "vjp_call_captured_s": 0.4}
    assert cuda.count("begin") == 2 and cuda.count("replay") == 2 * 10 * (1 + 7)


def test_a_func_that_cannot_be_captured_gives_the_reason(problem, cuda, monkeypatch):
    def refuse(graph, stream, capture_error_mode):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    assert wall_time.captured_call_times(problem) == {
        "floor_captured_reason": "the bare calls were not captured: "
        "RuntimeError: operation not permitted when stream is capturing"
    }
    assert all(p.grad is None for p in problem.parameters)
