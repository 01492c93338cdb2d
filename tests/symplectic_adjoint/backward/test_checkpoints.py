"""Checkpoints for the backward pass, and where they are kept: the gradient is the same for every choice."""

import gc
import math
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.memory.byte_size import format_bytes
from symplectic_adjoint.memory.storage import OnDisk
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import SmallNet, start, weighted_loss
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
T = torch.tensor([0.0, 0.37, 0.4, 1.0], dtype=torch.float64)
ADAPTIVE = {"rtol": 1e-5, "atol": 1e-5}
STATE_BYTES = start().numel() * 8

CHOICES = {
    "graphs-1": sa.Symplectic(graphs=1),
    "graphs-11": sa.Symplectic(graphs=11),
    "graphs-all": sa.Symplectic(graphs=math.inf),
    "stages-graphs-5": sa.Symplectic(keep="stages", graphs=5),
    "disk": sa.Symplectic(offload="disk"),
    "cpu": sa.Symplectic(offload="cpu"),
    "stages-disk-graphs": sa.Symplectic(keep="stages", offload="disk", graphs=3),
    "revolve-1": sa.Revolve(1),
    "revolve-3": sa.Revolve(3),
    "revolve-bytes": sa.Revolve(f"{2 * STATE_BYTES} B"),
    "revolve-disk": sa.Revolve(2, offload="disk"),
}
every_choice = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)


def gradients(func, solution, inputs, **keywords):
    return torch.autograd.grad(weighted_loss(solution), inputs, allow_unused=True, **keywords)


def assert_exact(func, y0, t, solution, method, **keywords):
    inputs = [y0, t, *func.parameters()]
    got = gradients(func, solution.ys, inputs, **keywords)
    expected = gradients(func, replay(func, sa.METHODS[method], solution.grid, y0, t), inputs)
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or relative_error(one, other) < ROUNDING


@pytest.mark.parametrize("method", EXPLICIT_METHODS)
@every_choice
def test_autograd_on_the_recorded_grid(choice, method):
    func, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    options = {} if sa.METHODS[method].adaptive else {"step_size": 0.08}
    solution = sa.solve(func, y0, t, method=method, gradient=choice, options=options, rtol=1e-4, atol=1e-4)
    assert_exact(func, y0, t, solution, method)


@every_choice
def test_a_second_backward_pass_gives_the_same(choice):
    func, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    solution = sa.solve(func, y0, t, gradient=choice, **ADAPTIVE)
    inputs = [y0, t, *func.parameters()]
    first = gradients(func, solution.ys, inputs, retain_graph=True)
    assert_exact(func, y0, t, solution, "dopri5", retain_graph=True)
    for one, other in zip(first, gradients(func, solution.ys, inputs), strict=True):
        assert (one is None) == (other is None) and (one is None or relative_error(one, other) < ROUNDING)


@every_choice
def test_rejected_steps_leave_nothing_behind(choice):
    func, y0 = SmallNet(), start().requires_grad_()
    t = torch.tensor([0.0, 3.0], dtype=torch.float64, requires_grad=True)
    solution = sa.solve(func, y0, t, gradient=choice, method="bosh3", options={"first_step": 3.0}, rtol=1e-6, atol=1e-6)
    assert solution.stats.rejected >= 2
    assert_exact(func, y0, t, solution, "bosh3")


@every_choice
def test_in_float64_and_with_compensation(choice):
    func, y0, t = SmallNet(), start().requires_grad_(), T.clone().requires_grad_()
    for accumulate in ("float64", "compensated"):
        solution = sa.solve(func, y0, t, gradient=choice, accumulate=accumulate, **ADAPTIVE)
        assert_exact(func, y0, t, solution, "dopri5")


class Stochastic(SmallNet):
    """Batch statistics and dropout: a call again must be the call that was made, and one that is held stays so."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, t, y):
        return nn.functional.dropout(super().forward(t, self.norm(y)), 0.3)


@every_choice
def test_batch_statistics_and_dropout(choice):
    def gradients_and_statistics(gradient):
        torch.manual_seed(0)
        func = Stochastic()
        ys = sa.odeint(func, start(), T, gradient=gradient, method="rk4", options={"step_size": 0.1})
        ys.sum().backward()
        return [x for x in (*(p.grad for p in func.parameters()), *func.buffers()) if x is not None]

    for got, expected in zip(gradients_and_statistics(choice), gradients_and_statistics("backprop"), strict=True):
        torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)


@given(
    steps=st.integers(1, 40),
    room=st.integers(1, 12),
    graphs=st.integers(0, 60),
    method=st.sampled_from(["euler", "midpoint", "rk38", "dopri5"]),
    outputs=st.lists(st.floats(0.01, 0.99), max_size=4, unique=True),
)
def test_drawn_numbers_of_steps_checkpoints_graphs_and_outputs(steps, room, graphs, method, outputs):
    times = torch.tensor([0.0, *sorted(outputs), 1.0], dtype=torch.float64)
    for choice in (sa.Revolve(room), sa.Symplectic(graphs=graphs)):
        func, y0, t = SmallNet(), start().requires_grad_(), times.clone().requires_grad_()
        solution = sa.solve(func, y0, t, method=method, gradient=choice, options={"step_size": 1 / steps})
        assert_exact(func, y0, t, solution, method)


class TestGraphsThatAreHeld:
    def test_all_of_them_held_need_no_f_call_in_the_backward_pass(self):
        func, y0 = SmallNet(), start().requires_grad_()
        solution = sa.solve(func, y0, T[[0, 3]], gradient=sa.Symplectic(graphs=math.inf), **ADAPTIVE)
        solution.ys.sum().backward()
        assert solution.stats.f_calls_backward == 0

    @pytest.mark.parametrize("graphs", [3, math.inf])
    def test_a_tensor_of_a_closure_gets_its_gradient(self, graphs):
        def gradient(choice):
            source = torch.ones((), dtype=torch.float64, requires_grad=True)
            outside = source.sin()
            ys = sa.odeint(lambda t, y: outside * y, start(), T, gradient=choice)
            return torch.autograd.grad(ys.sum() * outside, source)[0]

        assert relative_error(gradient(sa.Symplectic(graphs=graphs)), gradient("backprop")) < 1e-12  # rounding

    def test_a_change_in_place_between_the_passes_is_an_error(self):
        func = SmallNet()
        ys = sa.odeint(func, start(), T, gradient=sa.Symplectic(graphs=math.inf), **ADAPTIVE)
        with torch.no_grad():
            func.outer.weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            ys.sum().backward()

    def test_the_callers_hooks_see_the_whole_gradient_once(self):
        func, seen = SmallNet(), []
        func.outer.weight.register_hook(seen.append)
        sa.odeint(func, start(), T, gradient=sa.Symplectic(graphs=7), **ADAPTIVE).sum().backward()
        assert len(seen) == 1 and torch.equal(seen[0], func.outer.weight.grad)

    def test_their_memory_is_free_after_the_backward_pass(self):
        func, held = SmallNet(), []
        ys = sa.odeint(func, start(), T, gradient=sa.Symplectic(graphs=math.inf), **ADAPTIVE)
        node = ys.grad_fn
        ys.sum().backward()
        held = node.call.graphs
        assert held == []

    @pytest.mark.parametrize("number", [-1, 1.5j, "3", True, math.nan])
    def test_an_invalid_number_is_refused(self, number):
        with pytest.raises(ValueError, match="graphs"):
            sa.Symplectic(graphs=number)


class TestRevolve:
    @pytest.mark.parametrize("number", [0, -1, 1.5, True, None, "0 B", "many", "12 parsecs"])
    def test_an_invalid_number_of_checkpoints_is_refused(self, number):
        with pytest.raises(ValueError, match="checkpoints"):
            sa.Revolve(number)

    def test_a_budget_below_one_state_is_refused_with_its_size_before_func_is_called(self):
        def func(t, y):
            raise AssertionError

        with pytest.raises(ValueError, match=f"one takes {format_bytes(STATE_BYTES)}"):
            sa.odeint(func, start().requires_grad_(), T, gradient=sa.Revolve("8 B"))

    def test_an_adaptive_solve_keeps_no_more_states_than_its_limit(self):
        func, y0 = SmallNet(), start().requires_grad_()
        for room in (1, 2, 5):
            solution = sa.solve(func, y0, T[[0, 3]], gradient=sa.Revolve(room), method="bosh3", rtol=1e-8, atol=1e-8)
            assert solution.stats.accepted > 20
            states = [x for x in solution.ys.grad_fn.saved_tensors if x.shape == y0.shape]
            assert len(states) == 1 + room + 1  # y0, and the last step's start


class TestOnDisk:
    def test_no_file_has_a_name_during_the_solve_or_after_it(self, tmp_path):
        func, y0 = SmallNet(), start().requires_grad_()
        ys = sa.odeint(func, y0, T, gradient=sa.Symplectic(offload="disk", folder=str(tmp_path)), **ADAPTIVE)
        assert list(tmp_path.iterdir()) == []
        ys.sum().backward()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the process's memory map")
    def test_files_are_gone_with_the_graph(self, tmp_path):
        def mapped():
            gc.collect()
            return str(tmp_path) in Path("/proc/self/maps").read_text()

        ys = sa.odeint(SmallNet(), start(), T, gradient=sa.Symplectic(offload="disk", folder=str(tmp_path)), **ADAPTIVE)
        assert mapped()
        del ys
        assert not mapped()

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's resident memory")
    def test_states_written_to_disk_leave_the_processs_memory(self, tmp_path):
        code = f"""
import torch
from symplectic_adjoint.memory.storage import OnDisk

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * {os.sysconf("SC_PAGE_SIZE")}

disk, x = OnDisk({str(tmp_path)!r}), torch.ones(2**20)
disk.put(x)
before = resident()
kept = [disk.put(x) for _ in range(25)]
grown = resident() - before
assert grown < 20 * 2**20, grown
assert all(torch.equal(one, x) for one in kept)
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_missing_folder_is_an_error_before_func_is_called(self, tmp_path):
        def func(t, y):
            raise AssertionError

        choice = sa.Symplectic(offload="disk", folder=str(tmp_path / "none"))
        with pytest.raises(sa.OffloadError, match=r"none.*Give another folder"):
            sa.odeint(func, start().requires_grad_(), T, gradient=choice)

    def test_a_full_folder_is_an_error_and_not_half_a_gradient(self, tmp_path, monkeypatch):
        func, y0 = SmallNet(), start().requires_grad_()
        monkeypatch.setattr(OnDisk, "CHUNK_BYTES", 2 * STATE_BYTES)
        given_out = []

        def fallocate(descriptor, offset, length):
            given_out.append(length)
            if len(given_out) > most:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", fallocate, raising=False)
        anonymous = mmap.mmap
        monkeypatch.setattr(mmap, "mmap", lambda descriptor, length: anonymous(-1, length))
        choice = sa.Symplectic(offload="disk", folder=str(tmp_path))
        most = 2
        with pytest.raises(sa.OffloadError, match=r"more in .*No space left on device"):
            sa.odeint(func, y0, T, gradient=choice, method="rk4", options={"step_size": 0.1})
        # In the backward pass, where revolve keeps other states.
        most = 10**6
        ys = sa.odeint(
            func, y0, T, gradient=sa.Revolve(2, "disk", str(tmp_path)), method="rk4", options={"step_size": 0.1}
        )
        most = len(given_out) + 1
        with pytest.raises(sa.OffloadError):
            ys.sum().backward()
        assert y0.grad is None and all(p.grad is None for p in func.parameters())

    @pytest.mark.parametrize("keywords", [{"offload": "tape"}, {"folder": "x"}, {"offload": "disk", "folder": 3}])
    def test_an_invalid_place_is_refused(self, keywords):
        for choice in (sa.Symplectic, sa.Revolve):
            with pytest.raises(ValueError, match=r"offload|folder"):
                choice(**keywords)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16])
    def test_tensors_come_back_as_they_were(self, tmp_path, dtype):
        disk = OnDisk(str(tmp_path))
        tensors = [torch.randn(n, 3).to(dtype) for n in (0, 1, 5, 1000)]
        for x, there in zip(tensors, [disk.put(x) for x in tensors], strict=True):
            assert there.dtype == x.dtype and torch.equal(there, x)
