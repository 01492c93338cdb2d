"""gradient="auto": the exact gradient within memory_budget bytes, as few f calls computed again as fit."""

import random

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, Auto, Revolve, Symplectic, solve
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.oracle import relative_error, replay

ROUNDING = 1e-12  # as in test_exactness
T = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Wide(nn.Module):
    """A graph of some twenty states."""

    def __init__(self, size=8, width=64):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, size)
        ).double()

    def forward(self, t, y):
        return self.net(y) * torch.cos(t)


def least_of(func, y0, t, **how):
    with pytest.raises(sa.BudgetTooSmall) as caught:
        solve(func, y0, t, gradient="auto", memory_budget=1, **how)
    return caught.value.least_bytes


def budgets(func, y0, t, **how):
    """Return budgets from the smallest to more than enough; each drops something else."""
    least = least_of(func, y0, t, **how)
    most = sa.measure_memory(func, y0, t, gradient=Symplectic(graphs=float("inf")), **how).peak_tensor_bytes
    return [int(least + share * max(0, most - least)) for share in (0.0, 0.05, 0.2, 0.6, 2.0)]


@pytest.mark.parametrize(("size", "width"), [(8, 64), (8, 4), (512, 8)])
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "dop853"])
def test_many_outputs_inside_steps_are_within_the_budget(method, size, width):
    """With the stages that dense output adds, and the sums of the outputs' cotangents, which are formed together."""
    func, y0, how = Wide(size, width), torch.randn(16, size).double(), {"method": method, "rtol": 1e-4, "atol": 1e-4}
    for outputs in (6, 20, 300):
        t = torch.linspace(0.0, 2.0, outputs, dtype=torch.float64)
        least = least_of(func, y0, t, **how)
        for budget in (least, int(1.4 * least)):
            assert sa.measure_memory(func, y0, t, gradient=Auto(budget), **how).peak_tensor_bytes <= budget


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "adaptive"])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_the_gradient_is_autograd_on_the_recorded_grid_for_every_choice_of_what_is_held(method, fixed):
    if not fixed and not METHODS[method].adaptive:
        pytest.skip("fixed steps only")
    func, y0 = SmallNet(width=32), start(batch=16).requires_grad_()
    t = torch.tensor([0.0, 0.25, 0.3, 0.8, 1.0], dtype=torch.float64, requires_grad=True)
    how = {"method": method, "rtol": 1e-4, "atol": 1e-4, "options": {"step_size": 0.06} if fixed else {}}
    inputs, seen = [y0, t, *func.parameters()], set()
    for budget in budgets(func, y0, t, **how):
        solution = solve(func, y0, t, gradient="auto", memory_budget=budget, **how)
        ys = replay(func, METHODS[method], solution.grid, y0, t)
        got, expected = (torch.autograd.grad(weighted_loss(x), inputs, allow_unused=True) for x in (solution.ys, ys))
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING
        choice = solution.stats.choice
        seen.add((choice.starts < choice.steps, choice.stages > 0, 0 < choice.graphs < choice.f_calls))
    assert len(seen) > 1  # they differed


def test_no_graph_is_left_if_starts_are_dropped_in_the_middle_of_a_solve():
    """A last stage that is the next step's first was on a graph, and its step's other stages are not."""
    func, y0 = SmallNet(width=4), start(batch=64).requires_grad_()  # a graph of hardly more than a state
    how = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}
    least, inputs = least_of(func, y0, T, **how), [y0, *func.parameters()]
    expected, given_up = None, 0
    for share in torch.linspace(1.0, 4.0, 25).tolist():
        solution = solve(func, y0, T, gradient="auto", memory_budget=int(least * share), **how)
        choice = solution.stats.choice
        given_up += choice.starts < choice.steps
        assert choice.graphs == 0 or choice.starts == choice.steps
        got = torch.autograd.grad(weighted_loss(solution.ys), inputs, allow_unused=True)
        ys = solve(func, y0, T, **how).ys
        expected = expected or torch.autograd.grad(weighted_loss(ys), inputs, allow_unused=True)
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING
    assert given_up > 0


def a_case(seed):
    """Draw (method, number of steps, times of outputs, choice), with random c, graphs and bytes."""
    draw = random.Random(seed)
    method = list(EXPLICIT_METHODS)[seed % len(EXPLICIT_METHODS)]
    steps = draw.randint(1, 30)
    times = sorted({0.0, 1.0, *(draw.choice([draw.random(), draw.randint(1, steps) / steps]) for _ in range(seed % 4))})
    choice = [
        Revolve(draw.randint(1, 12)),
        Symplectic(graphs=draw.randint(1, steps * 6)),
        Symplectic(keep="stages", graphs=draw.randint(0, steps * 6)),
        Revolve(draw.randint(1, 12), offload="disk"),
        Symplectic(offload="disk"),
        Auto(draw.randint(16_000, 80_000)),
    ][draw.randrange(6)]
    return method, steps, times, choice


@pytest.mark.parametrize("seed", range(200))
def test_exact_for_200_draws_of_steps_room_and_outputs(seed):
    method, steps, times, choice = a_case(seed)
    func, y0 = SmallNet(width=16), start(batch=8).requires_grad_()
    t = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    solution = solve(func, y0, t, method=method, options={"step_size": 1.0 / steps}, gradient=choice)
    ys = replay(func, METHODS[method], solution.grid, y0, t)
    inputs = [y0, t, *func.parameters()]
    got, expected = (torch.autograd.grad(weighted_loss(x), inputs, allow_unused=True) for x in (solution.ys, ys))
    assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < ROUNDING, choice


@pytest.mark.parametrize("how", [{"method": "rk4", "options": {"step_size": 0.02}}, {"rtol": 1e-9, "atol": 1e-9}])
@pytest.mark.parametrize("batch", [4, 256])
def test_the_budget_is_kept_and_the_peak_is_as_predicted(how, batch):
    func, y0 = Wide(), torch.randn(batch, 8, dtype=torch.float64)
    state = y0.numel() * 8
    calls = []
    for budget in budgets(func, y0, T, **how):
        solution = solve(func, y0, T, gradient="auto", memory_budget=budget, **how)
        peak = sa.measure_memory(func, y0, T, gradient=Auto(budget), **how).peak_tensor_bytes
        choice = solution.stats.choice
        # Beside states there are numbers: times, norms, step sizes.
        assert peak <= budget + 0.2 * state + 4096
        # measure_memory's cotangents are there before it begins: two states less; the rest is the bound of the issue.
        assert 0.85 * choice.predicted_peak_bytes - 2 * state <= peak <= 1.15 * choice.predicted_peak_bytes + 4096
        solution.ys.sum().backward()
        calls.append(solution.stats.f_calls_backward)
    assert calls == sorted(calls, reverse=True) and calls[0] > calls[1] > calls[-1] == 0


def test_the_smallest_budget_that_is_reported_works_and_a_smaller_one_does_not():
    func, y0 = Wide(), torch.randn(64, 8, dtype=torch.float64)
    how = {"method": "rk4", "options": {"step_size": 0.1}}
    least = least_of(func, y0, T, **how)
    with pytest.raises(sa.BudgetTooSmall, match=rf"give .* \({least} bytes\) or more"):
        solve(func, y0, T, gradient="auto", memory_budget=least - 1, **how)
    stats = solve(func, y0, T, gradient="auto", memory_budget=least, **how).stats
    assert stats.choice.starts == 3 and stats.choice.graphs == 0  # y0, one between, and that of the last step


def test_stats_report_the_choice():
    func, y0 = Wide(), torch.randn(64, 8, dtype=torch.float64)
    how = {"method": "rk4", "options": {"step_size": 0.1}}
    everything = solve(func, y0, T, gradient="auto", memory_budget="1 GiB", **how).stats.choice
    assert "held every graph" in str(everything) and "starts of 10 of 10 steps" in str(everything)
    assert everything.graphs == everything.f_calls == 40
    some = solve(func, y0, T, gradient=Auto(everything.predicted_peak_bytes // 2), **how).stats.choice
    assert f"the graphs of the last {some.graphs} of 40 f calls" in str(some) and 0 < some.graphs < 40
    assert solve(func, y0, T, **how).stats.choice is None


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"gradient": "auto", "memory_budget": "lots"}, "memory_budget must be a number of bytes or a string"),
        ({"gradient": "auto", "memory_budget": -5}, "memory_budget must be positive"),
        ({"gradient": "auto", "memory_budget": "-5 MiB"}, "memory_budget must be a number of bytes or a string"),
        ({"gradient": "auto", "memory_budget": 0}, "memory_budget must be positive"),
        ({"memory_budget": "2 GiB"}, "belongs to gradient=\"auto\", got gradient='symplectic'"),
        ({"gradient": "auto", "memory_budget": "2 GiB", "compile": True}, "compile=True does not work with gradient="),
    ],
)
def test_bad_input_is_refused_before_func_is_called(keywords, message):
    func = Counted(SmallNet())
    with pytest.raises(ValueError, match=message):
        sa.odeint(func, start(), T, **keywords)
    assert func.calls == 0


def test_a_budget_that_is_not_a_size_is_a_type_error():
    with pytest.raises(TypeError, match="memory_budget must be a number of bytes or a string"):
        sa.odeint(SmallNet(), start(), T, gradient="auto", memory_budget=1.5)


class Remembering(nn.Module):
    """Dropout, batch statistics, and a count of its calls."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3)).double()
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return torch.tanh(self.net(y))


def test_measuring_happens_once_and_leaves_nothing_behind():
    func, y0 = Remembering(), start(batch=32).requires_grad_()
    how = {"method": "rk4", "options": {"step_size": 0.25}}
    least = Auto(least_of(Remembering(), y0, T, **how))
    seen = []
    for gradient in ("symplectic", least, least):
        torch.manual_seed(3)
        func.net[1].reset_running_stats()
        func.calls = 0
        ys = sa.odeint(func, y0, T, gradient=gradient, **how)
        calls = func.calls
        bars = torch.autograd.grad(ys.sum(), [y0, *func.parameters()])
        seen.append((ys.detach(), bars, func.net[1].running_mean.clone(), torch.rand(1), calls))
    for got in seen[1:]:
        assert torch.equal(got[0], seen[0][0]) and torch.equal(got[3], seen[0][3])
        assert torch.allclose(got[2], seen[0][2], rtol=1e-12)
        assert all(relative_error(a, b) < ROUNDING for a, b in zip(got[1], seen[0][1], strict=True))
    assert seen[2][4] == seen[0][4] < seen[1][4]
    assert all(p.grad is None for p in func.parameters())


def test_a_second_backward_pass_gives_the_same_gradient():
    func, y0 = Wide(), torch.randn(64, 8, dtype=torch.float64, requires_grad=True)
    how = {"method": "rk4", "options": {"step_size": 0.1}}
    for budget in budgets(func, y0, T, **how):
        ys = sa.odeint(func, y0, T, gradient="auto", memory_budget=budget, **how)
        inputs = [y0, *func.parameters()]
        first = torch.autograd.grad(ys.sum(), inputs, retain_graph=True)
        second = torch.autograd.grad(ys.sum(), inputs)
        assert all(relative_error(a, b) < ROUNDING for a, b in zip(first, second, strict=True))


def test_a_profiler_of_the_users_own_is_not_disturbed():
    func, y0 = Wide(), torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        pytest.raises(sa.UnsupportedCombination, match="solve once before you start it"),
    ):
        sa.odeint(func, y0, T, gradient="auto", memory_budget="1 GiB")
    sa.odeint(func, y0, T, gradient="auto", memory_budget="1 GiB")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        sa.odeint(func, y0, T, gradient="auto", memory_budget="1 GiB").sum().backward()


def test_events_and_structures_and_the_layer():
    net = SmallNet()
    y0 = {"x": start().requires_grad_(), "v": start(batch=2).requires_grad_()}

    def func(t, y):
        return {"x": net(t, y["x"]), "v": -y["v"]}

    def ends(t, y):
        return y["v"].abs().sum() - 2.0

    params = tuple(net.parameters())
    grads = []
    for gradient in ("symplectic", Auto("40 KiB")):
        event_t, ys = sa.odeint(func, y0, T, event_fn=ends, gradient=gradient, params=params)
        loss = event_t + ys["x"][-1].sum() + ys["v"][-1].square().sum()
        grads.append(torch.autograd.grad(loss, [*y0.values(), *params], allow_unused=True))
    assert all(relative_error(a, b) < ROUNDING for a, b in zip(*grads, strict=True))
    layer = sa.NeuralODE(net, gradient="auto", memory_budget="1 MiB")
    assert layer(start(), T).shape == (2, 4, 3)


def test_an_empty_batch_and_a_single_time():
    func, y0 = SmallNet(), start(batch=0).requires_grad_()
    ys = sa.odeint(func, y0, T, gradient="auto", memory_budget="1 MiB", options={"step_size": 0.1})
    ys.sum().backward()
    assert ys.shape == (2, 0, 3) and y0.grad.shape == (0, 3)
    one = sa.odeint(func, start(), T[:1], gradient="auto", memory_budget="1 MiB")
    assert torch.equal(one[0], start())
