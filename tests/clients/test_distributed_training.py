"""DistributedDataParallel over two processes: an encoder, a solve with a nested function, and a head with BatchNorm."""

import contextlib
import sys
import time
from functools import partial

import pytest
import torch
import torchdiffeq
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import symplectic_adjoint as sa
from tests.oracle import relative_error

pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available() or sys.platform == "win32",
    reason="torch was built without gloo",
)

T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
PROCESSES = 2
TIME_LIMIT_S = 120  # two processes import torch and train for some seconds; beyond, one waits for the other
ROUNDING = 1e-12  # as in test_exactness
SOLVERS = {
    "symplectic": partial(sa.odeint, method="rk38"),
    "aca": partial(sa.odeint, method="rk38", gradient="aca"),
    "truth": partial(torchdiffeq.odeint, method="rk4"),
}


class Model(nn.Module):
    def __init__(self, odeint):
        super().__init__()
        torch.manual_seed(0)
        self.odeint = odeint
        self.encoder, self.net, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        context = self.encoder(x)

        def field(t, y):
            return torch.tanh(self.net(y) + context)

        return self.head(self.norm(self.odeint(field, torch.zeros_like(context), T)[-1]))


def trained(odeint, rank):
    """Train for two steps of two micro-batches each, of which the first is not synchronised."""
    model = DistributedDataParallel(Model(odeint).double())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.randn(2, 2, PROCESSES, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for micro_batches in data[:, :, rank]:
        optimizer.zero_grad()
        for i, x in enumerate(micro_batches):
            with model.no_sync() if i == 0 else contextlib.nullcontext():
                model(x).square().mean().backward()
        optimizer.step()
    return model.module.state_dict() | {f"{name}.grad": p.grad for name, p in model.module.named_parameters()}


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    try:
        results = {}
        for name, odeint in SOLVERS.items():
            try:
                results[name] = trained(odeint, rank)
            except Exception as error:  # the other process fails alike, and the test says which solver did
                results[name] = f"{type(error).__name__}: {error}"
        torch.save(results, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_end_with_the_weights_of_plain_autograd(tmp_path):
    processes = multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=PROCESSES, join=False)
    deadline = time.monotonic() + TIME_LIMIT_S
    try:
        while not processes.join(timeout=0.2):
            assert time.monotonic() < deadline, f"the processes did not end within {TIME_LIMIT_S} s"
    finally:
        for process in processes.processes:
            if process.is_alive():
                process.kill()
    for results in (torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)):
        truth = results.pop("truth")
        for name, state in results.items():
            assert isinstance(state, dict), f"{name}: {state}"
            errors = {key: relative_error(state[key].double(), truth[key].double()) for key in truth}
            assert max(errors.values()) < ROUNDING, (name, errors)
