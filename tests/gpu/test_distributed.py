"""DistributedDataParallel over NCCL, in one process."""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import symplectic_adjoint as sa
from tests.gpu.problems import DEVICE, FIXED, ON_CARD, Mlp, T, keywords_of, loss_of, start, worst

BACKEND = "nccl" if ON_CARD else "gloo"
pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_backend_available(BACKEND),
    reason=f"torch was built without {BACKEND}",
)


@pytest.fixture
def process_group(tmp_path):
    where = {"device_id": DEVICE if DEVICE.index is not None else torch.device(DEVICE.type, 0)} if ON_CARD else {}
    distributed.init_process_group(BACKEND, init_method=f"file://{tmp_path}/store", rank=0, world_size=1, **where)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("gradient", [name for name in sa.GRADIENTS if name != "continuous"])
def test_its_gradient_is_that_of_the_layer_and_its_hooks_run_once(table, gradient):
    """In three iterations: the first two differ from all others in how buckets are formed."""
    y0 = start()
    layers = [sa.NeuralODE(Mlp(), **keywords_of(gradient, options=FIXED)) for _ in range(2)]
    plain, wrapped = layers[0], DistributedDataParallel(layers[1])
    hooked = []
    wrapped.module.func.layers[0].weight.register_hook(lambda bar: hooked.append(1))
    for _ in range(3):
        bars = []
        for layer in (plain, wrapped):
            layer.zero_grad()
            loss_of(layer(y0, T)).backward()
            bars.append([p.grad.clone() for p in layer.parameters()])
        table.at_most("DDP", f"{BACKEND}, one process: error", worst(*bars), 1e-6)  # float32, the same operations
    assert len(hooked) == 3
