"""The network in bfloat16 with a state in float32: the same weights, another rounding."""

import torch

from symplectic_bench.oracles.recorded_grid import relative_error
from symplectic_bench.problems import PROBLEMS

SIZES = {"state": 16, "width": 32}


def both(dtype):
    return [PROBLEMS[name].build(SIZES, 8, dtype) for name in ("mlp", "mlp_bf16")]


def test_the_layers_compute_in_bfloat16_and_the_state_keeps_its_dtype():
    problem = both("float32")[1]
    seen = []
    for layer in problem.func.network.layers:
        layer.register_forward_hook(lambda layer, args, value: seen.append(value.dtype))
    value = problem.func(torch.zeros(()), problem.y0)
    assert set(seen) == {torch.bfloat16} and value.dtype == torch.float32
    value.sum().backward()
    assert {x.grad.dtype for x in problem.inputs} == {torch.float32}


def test_it_differs_from_the_network_in_float32_by_rounding():
    """bfloat16 has 8 bits: each of three layers rounds by up to 2^-9 = 2e-3, and does so visibly."""
    plain, low = (problem.func(torch.zeros(()), problem.y0) for problem in both("float32"))
    assert 1e-4 < relative_error([low], [plain]) < 2e-2


def test_in_float64_it_is_the_network():
    plain, low = (problem.func(torch.zeros((), dtype=torch.float64), problem.y0) for problem in both("float64"))
    assert torch.equal(plain, low)
