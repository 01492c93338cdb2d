"""gradient="auto" without a budget takes a share of what the device has free."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint.memory import free
from tests.fields import SmallNet, start

CPU = torch.device("cpu")
T = torch.tensor([0.0, 1.0], dtype=torch.float64)
MIB = 2**20


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a function that writes files of an imitated host, by their paths."""
    monkeypatch.setattr(free, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(free, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(free, "CGROUPS", tmp_path / "cgroup")

    def write(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("-", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))

    write(meminfo="MemTotal:       4096000 kB\nMemFree:  1000 kB\nMemAvailable:     102400 kB\n")
    return write


def budget():
    return free.free_budget(CPU) / free.SHARE


def near(nbytes):
    return pytest.approx(nbytes, abs=2)  # rounding to whole bytes


def test_the_host_has_what_the_kernel_says(host):
    assert budget() == near(100 * MIB)


def test_a_limit_of_the_control_group_counts_with_cached_files_as_free(host):
    files = {"cgroup__job__memory-max": 50 * MIB, "cgroup__job__memory-current": 30 * MIB}
    host(own="0::/job\n", **files, **{"cgroup__job__memory-stat": f"anon 7\ninactive_file {10 * MIB}\n"})
    assert budget() == near(30 * MIB)


def test_a_limit_of_a_group_above_counts_too(host):
    host(own="0::/job/task\n", **{
        "cgroup__job__task__memory-max": "max", "cgroup__job__task__memory-current": 1,
        "cgroup__job__memory-max": 20 * MIB, "cgroup__job__memory-current": 5 * MIB,
    })  # fmt: skip
    assert budget() == near(15 * MIB)


def test_the_root_group_of_a_container_counts(host):
    host(own="0::/\n", **{"cgroup__memory-max": 20 * MIB, "cgroup__memory-current": 25 * MIB})
    assert free.free_budget(CPU) == 1  # more is used than is allowed: nothing is free, and a budget is positive


def test_the_first_version_of_control_groups_is_read(host):
    host(own="5:cpu,cpuacct:/job\n4:memory:/job\n", **{
        "cgroup__memory__job__memory-limit_in_bytes": 40 * MIB, "cgroup__memory__job__memory-usage_in_bytes": 16 * MIB,
        "cgroup__memory__job__memory-stat": f"cache 5\ntotal_inactive_file {MIB}\n",
    })  # fmt: skip
    assert budget() == near(25 * MIB)


def test_no_limit_leaves_what_the_host_has(host):
    host(own="0::/job\n", **{"cgroup__job__memory-max": "max", "cgroup__job__memory-current": 5})
    assert budget() == near(100 * MIB)


def test_without_meminfo_the_system_is_asked(host, monkeypatch):
    host(meminfo="")
    monkeypatch.setattr(free.os, "sysconf", {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert budget() == near(4_096_000)


def test_where_nothing_can_be_read_a_budget_is_asked_for(host, monkeypatch):
    host(meminfo="")
    monkeypatch.setattr(free.os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    with pytest.raises(ValueError, match="cannot read how much memory cpu has free: give memory_budget"):
        sa.odeint(SmallNet(), start(), T, gradient="auto")
    with pytest.raises(ValueError, match="how much memory mps has free"):
        free.free_budget(torch.device("mps"))


def test_a_gpu_has_what_the_driver_and_the_allocator_have_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * MIB, 100 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 25 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * MIB)
    assert free.free_budget(torch.device("cuda", 0)) == near(90 * MIB * free.SHARE)


@pytest.mark.parametrize("options", [{"step_size": 0.1}, {}], ids=["fixed", "adaptive"])
def test_the_choice_says_what_was_taken(host, options):
    solution = sa.solve(SmallNet(), start(), T, gradient="auto", options=options)
    assert solution.stats.choice.budget_bytes == near(100 * MIB * free.SHARE)
    assert "within 80 MiB" in str(solution.stats.choice)
    assert solution.stats.choice.graphs == solution.stats.choice.f_calls  # all of it fits


def test_little_free_memory_keeps_little_and_stays_exact(host):
    def gradient(kib, **keywords):
        host(meminfo=f"MemAvailable: {kib} kB")
        func, y0 = SmallNet(), start().requires_grad_()
        solution = sa.solve(func, y0, T, options={"step_size": 0.02}, **keywords)
        inputs = [y0, *(x for x in func.parameters() if x.requires_grad)]
        bars = torch.autograd.grad(solution.ys.square().sum(), inputs, materialize_grads=True)
        return solution.stats.choice, bars

    choice, found = gradient(90, gradient="auto")
    _, expected = gradient(90, gradient="backprop")
    assert 0 < choice.graphs < choice.f_calls
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)  # rounding of 50 steps


def test_too_little_says_how_much_is_needed(host):
    host(meminfo="MemAvailable: 1 kB")
    with pytest.raises(sa.BudgetTooSmall, match=r"give .* or more"):
        sa.odeint(SmallNet(), start(), T, gradient="auto", options={"step_size": 0.02})
