"""The convolutional field and the flow with the exact trace: their own properties, beside those of all problems."""

import torch

from symplectic_bench.problems import PROBLEMS
from symplectic_bench.problems.flow import Transport


def build(name, batch=3, **sizes):
    return PROBLEMS[name].build(sizes, batch, "float64")


T = torch.tensor(0.3, dtype=torch.float64)


def test_a_trace_is_that_of_the_jacobian_of_each_sample():
    problem = build("flow_exact", dim=3)
    assert isinstance(problem.func, Transport)
    velocity, change = problem.func.velocity, problem.func(T, problem.y0)
    for row, found in zip(problem.y0.detach(), change, strict=True):
        J = torch.autograd.functional.jacobian(lambda z: velocity(T, z), row[:-1])
        torch.testing.assert_close(found[-1], -J.trace(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[:-1], velocity(T, row[:-1]), rtol=1e-12, atol=1e-12)


def test_a_convolution_reaches_two_points_and_no_further():
    problem = build("convolution", batch=1, channels=1, hidden=3, points=9)
    moved = problem.y0.detach().view(1, 9, 9).clone()
    moved[0, 4, 4] += 1.0
    changed = (problem.func(T, moved.flatten(1)) != problem.func(T, problem.y0)).view(9, 9)
    assert changed[2:7, 2:7].all() and int(changed.sum()) == 25


def test_a_convolution_commutes_with_shifts_away_from_the_edge():
    problem = build("convolution", batch=1, channels=1, points=12)
    image = torch.zeros(1, 12, 12, dtype=torch.float64)
    image[0, 4:6, 4:6] = torch.randn(2, 2, dtype=torch.float64)
    there, here = (problem.func(T, x.flatten(1)).view(12, 12) for x in (image.roll((1, 2), (1, 2)), image))
    torch.testing.assert_close(there[4:9, 5:10], here[3:8, 3:8], rtol=1e-12, atol=1e-12)


def test_a_convolution_takes_a_time_for_each_sample():
    problem = build("convolution", batch=2)
    times = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    both = problem.func(times, problem.y0)
    for i in range(2):
        torch.testing.assert_close(both[i], problem.func(times[i, 0], problem.y0)[i], rtol=1e-12, atol=1e-12)
