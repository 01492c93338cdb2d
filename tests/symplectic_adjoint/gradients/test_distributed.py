"""Several processes: DistributedDataParallel works over a solve, sharded parameters are refused by name."""

import sys
import time

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import symplectic_adjoint as sa
from tests.fields import SmallNet, start
from tests.gradients import STANDARD
from tests.oracle import relative_error

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available() or sys.platform == "win32",
    reason="torch was built without gloo",
)

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
PROCESSES = 2
TIME_LIMIT_S = 120  # two processes import torch and solve for some seconds; beyond, one waits for the other
ROUNDING = 1e-12  # as in test_exactness
GRIDS = {"fixed": {"method": "rk4", "options": {"step_size": 0.25}}, "adaptive": {"rtol": 1e-5, "atol": 1e-5}}

GRADIENTS = (*STANDARD, "reversible")
CASES = [(gradient, grid, unused) for gradient in GRADIENTS for grid in GRIDS for unused in (False, True)]


def batch():
    return start(batch=2 * PROCESSES)


def share(rank):
    return batch()[2 * rank : 2 * rank + 2]


def loss_of(ys):
    """Return a mean over samples, as DistributedDataParallel takes one over processes."""
    return (ys.square() + ys.sin()).sum(dim=(0, 2)).mean()


def model(gradient, grid, unused):
    net = SmallNet()
    net.unused.requires_grad_(unused)  # frozen, it is no parameter to wait for
    return sa.NeuralODE(net, gradient=gradient, **GRIDS[grid])


def gradients(module, y0):
    module.zero_grad()
    loss_of(module(y0, T)).backward()
    return {name.removeprefix("module."): p.grad for name, p in module.named_parameters() if p.requires_grad}


def work(rank, folder):
    """Run every case twice in one process: DistributedDataParallel treats the second iteration differently."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    try:
        results = {}
        for case in CASES:
            wrapped = DistributedDataParallel(model(*case), find_unused_parameters=case[-1])
            results[case] = [gradients(wrapped, share(rank)) for _ in range(2)]
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


def worked(folder):
    """Return the gradients that each process ended with, by case."""
    processes = multiprocessing.spawn(work, args=(str(folder),), nprocs=PROCESSES, join=False)
    deadline = time.monotonic() + TIME_LIMIT_S
    try:
        while not processes.join(timeout=1.0):
            assert time.monotonic() < deadline, f"the processes did not end within {TIME_LIMIT_S} s"
    finally:
        for process in processes.processes:
            if process.is_alive():
                process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def largest_error(got, expected):
    assert list(got) == list(expected)
    return max(relative_error(got[name], expected[name]) for name in expected)


def test_distributed_data_parallel_has_the_gradient_of_the_whole_batch(tmp_path):
    """All gradients in one test, so that processes are started once."""
    errors = {}
    of_processes = worked(tmp_path)
    for case in CASES:
        gradient, grid, unused = case
        shares = [gradients(model(*case), share(rank)) for rank in range(PROCESSES)]
        mean = {name: None if p is None else (p + shares[1][name]) / 2 for name, p in shares[0].items()}
        got = [iteration for results in of_processes for iteration in results[case]]
        assert len(got) == 2 * PROCESSES and all(("func.unused" in names) == unused for names in got)
        errors[gradient, grid, unused, "mean of shares"] = max(largest_error(x, mean) for x in got)
        if grid == "fixed":  # adaptive steps depend on the other samples
            whole = gradients(model(*case), batch())
            errors[gradient, grid, unused, "whole"] = max(largest_error(x, whole) for x in got)
    wrong = {case: error for case, error in errors.items() if error > ROUNDING}
    assert not wrong and len(errors) == len(CASES) * 3 // 2


@pytest.fixture
def mesh(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        yield distributed.init_device_mesh("cpu", (1,))
    finally:
        distributed.destroy_process_group()


def distributed_by_hand(net, mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    net.inner.weight = nn.Parameter(distribute_tensor(net.inner.weight.detach(), mesh, [Shard(0)]))
    return net


def fully_sharded(net, mesh):
    from torch.distributed.fsdp import fully_shard

    return fully_shard(net, mesh=mesh)


def fully_sharded_by_a_wrapper(net, mesh):
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    del mesh
    return FullyShardedDataParallel(net, sharding_strategy=ShardingStrategy.NO_SHARD, device_id=torch.device("cpu"))


class Owner:
    """A plain object that holds a module."""

    def __init__(self, net):
        self.net = net

    def __call__(self, t, y):
        return self.net(t, y)


# However func reaches the module.
FUNCS = {"module": lambda net: net, "closure": lambda net: lambda t, y: net(t, y), "object": Owner}


@pytest.mark.parametrize("func", FUNCS)
@pytest.mark.parametrize("shard", [distributed_by_hand, fully_sharded, fully_sharded_by_a_wrapper])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_sharded_parameters_are_refused_by_name(gradient, shard, func, mesh):
    calls = []
    net = shard(SmallNet(), mesh)
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(sa.UnsupportedCombination, match=r"func's parameters are sharded \(.*FSDP.*DistributedDataPar"):
        sa.odeint(FUNCS[func](net), start(), T, gradient=gradient)
    assert not calls
