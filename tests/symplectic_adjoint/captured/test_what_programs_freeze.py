"""Programs freeze numbers and addresses: a solve after a change of one must not replay the old value."""

import functools
import gc

import pytest
import torch
from torch import nn

from symplectic_adjoint import FunctionChanged, RecordedAnewWarning, odeint, solve
from symplectic_adjoint.errors import NotCapturable

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
ADAPTIVE = {"rtol": 1e-6, "atol": 1e-8}
FIXED = {"method": "rk4", "options": {"step_size": 0.2}}
# The two solves do the same operations in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
GLOBAL_RATE = 1.0


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3, dtype=torch.float64)
        self.scale, self.shift = 1.0, [0.1]
        self.register_buffer("offset", torch.zeros(3, dtype=torch.float64))
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return torch.tanh(self.lin(y)) * self.scale + self.offset + self.shift[0]


def gradients(func, params, **keywords):
    y = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
    ys = odeint(func, y, T, **keywords)
    return torch.autograd.grad(ys[-1].square().sum(), [y, *params])


def require_equal(func, params, **keywords):
    for got, expected in zip(
        gradients(func, params, capture=True, **keywords), gradients(func, params, **keywords), strict=True
    ):
        torch.testing.assert_close(got, expected, **ROUNDING)


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
class TestAfterAChange:
    def test_of_an_attribute_a_buffer_and_a_list(self, recorded, keywords):
        net = Scaled()
        params = tuple(net.parameters())
        require_equal(net, params, **keywords)
        net.scale = 0.3
        require_equal(net, params, **keywords)
        net.shift[0] = -0.4
        require_equal(net, params, **keywords)
        net.offset.fill_(0.7)  # in place: the program reads it anew
        require_equal(net, params, **keywords)
        net.offset = torch.full((3,), -0.2, dtype=torch.float64)
        require_equal(net, params, **keywords)

    def test_of_a_closure_number_a_default_a_partial_and_a_global(self, recorded, keywords, monkeypatch):
        lin = nn.Linear(3, 3, dtype=torch.float64)
        params = tuple(lin.parameters())
        rate = 1.0

        def closed(t, y):
            return torch.tanh(lin(y)) * rate

        def named(t, y):
            return torch.tanh(lin(y)) * GLOBAL_RATE

        def given(t, y, rate):
            return torch.tanh(lin(y)) * rate

        for rate in (1.0, 0.4, 1.0):
            require_equal(closed, params, **keywords)
            require_equal(lambda t, y, rate=rate: torch.tanh(lin(y)) * rate, params, **keywords)
            require_equal(functools.partial(given, rate=rate), params, **keywords)
            monkeypatch.setitem(globals(), "GLOBAL_RATE", rate)
            require_equal(named, params, **keywords)

    def test_of_parameters_in_place_and_by_replacement(self, recorded, keywords):
        net = Scaled()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        require_equal(net, tuple(net.parameters()), **keywords)
        before = len(recorded)
        for _ in range(2):
            for p, grad in zip(net.parameters(), gradients(net, tuple(net.parameters()), **keywords)[1:], strict=True):
                p.grad = grad
            optimizer.step()
            require_equal(net, tuple(net.parameters()), **keywords)
        assert len(recorded) == before  # the same programs served all
        net.lin.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))
        require_equal(net, tuple(net.parameters()), **keywords)
        net.lin.bias.data = torch.randn(3, dtype=torch.float64)
        require_equal(net, tuple(net.parameters()), **keywords)
        net.lin.bias.requires_grad_(False)
        require_equal(net, (net.lin.weight,), **keywords)

    def test_of_train_and_eval(self, recorded, keywords):
        class ByMode(Scaled):
            def forward(self, t, y):
                return super().forward(t, y) * (1.0 if self.training else 0.5)

        net = ByMode()
        for _ in range(2):
            require_equal(net.train(), tuple(net.parameters()), **keywords)
            require_equal(net.eval(), tuple(net.parameters()), **keywords)

    def test_between_the_passes_of_one_solve(self, recorded, keywords):
        net = Scaled()
        params = tuple(net.parameters())
        y = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        expected = torch.autograd.grad(odeint(net, y, T, **keywords)[-1].sum(), [y, *params])
        ys = odeint(net, y, T, capture=True, **keywords)
        net.scale = 0.1
        net.eval()
        for a, b in zip(torch.autograd.grad(ys[-1].sum(), [y, *params]), expected, strict=True):
            torch.testing.assert_close(a, b, **ROUNDING)
        assert net.scale == 0.1
        assert not net.training


def test_what_no_key_shows_is_found_by_the_first_value_and_recorded_anew(recorded):
    class Hidden:
        """Holds its number where the library does not look."""

        __slots__ = ("__cell",)

        def __init__(self):
            self.__cell = {"deep": {"deeper": [[[[[[[1.0]]]]]]]}}

        def set(self, x):
            self.__cell["deep"]["deeper"][0][0][0][0][0][0][0] = x

        def __call__(self):
            return self.__cell["deep"]["deeper"][0][0][0][0][0][0][0]

    hidden, lin = Hidden(), nn.Linear(3, 3, dtype=torch.float64)

    def func(t, y):
        return torch.tanh(lin(y)) * hidden()

    for keywords in (ADAPTIVE, FIXED):
        for value in (1.0, 0.5, 0.25):
            hidden.set(value)
            require_equal(func, tuple(lin.parameters()), **keywords)


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
def test_a_value_that_changes_with_every_call_is_refused(recorded, keywords):
    lin, numbers = nn.Linear(3, 3, dtype=torch.float64), iter(range(10**6))

    def func(t, y):
        return torch.tanh(lin(y)) * (1.0 + 0.01 * next(numbers))

    with pytest.raises(NotCapturable, match="other values than a program"):
        gradients(func, tuple(lin.parameters()), capture=True, **keywords)


@pytest.mark.filterwarnings("ignore::symplectic_adjoint.RecordedAnewWarning")
def test_a_thousand_lambdas_keep_a_bounded_number_of_programs(recorded):
    lin = nn.Linear(3, 3, dtype=torch.float64)
    for i in range(1000):
        odeint(
            lambda t, y, i=i: torch.tanh(lin(y)) + i, torch.ones(2, 3, dtype=torch.float64), T, **FIXED, capture=True
        )
        assert len(recorded) <= 8


def test_functions_of_different_code_free_their_programs(recorded):
    for i in range(12):
        names = {"torch": torch}
        exec(f"def func(t, y):\n    return torch.tanh(y) * {i + 1}.5", names)
        odeint(names["func"], torch.ones(2, 3, dtype=torch.float64), T, **FIXED, capture=True)
        names.clear()
        gc.collect()
        assert len(recorded) <= 1


def test_many_modules_keep_a_bounded_number_of_programs_which_are_freed_with_them(recorded):
    nets = [Scaled() for _ in range(50)]
    for net in nets:
        gradients(net, tuple(net.parameters()), capture=True, **FIXED)
    assert 0 < len(recorded) <= 32
    del net
    nets.clear()
    gc.collect()
    assert len(recorded) == 0


CALLS = 0


def counters():
    """Return functions that count their calls, each with a function that reads the count."""
    lin, held, box = nn.Linear(3, 3, dtype=torch.float64), {"calls": 0}, [0]
    count = 0

    def by_variable(t, y):
        nonlocal count
        count += 1
        return lin(y)

    def by_global(t, y):
        global CALLS
        CALLS += 1
        return lin(y)

    def by_dict(t, y):
        held["calls"] += 1
        return lin(y)

    def by_list(t, y):
        box[0] += 1
        return lin(y)

    class Plain:
        def __init__(self):
            self.calls = 0

        def __call__(self, t, y):
            self.calls += 1
            return lin(y)

    plain = Plain()
    return [
        (by_variable, lambda: count),
        (by_global, lambda: CALLS),
        (by_dict, lambda: held["calls"]),
        (by_list, lambda: box[0]),
        (plain, lambda: plain.calls),
        (lambda t, y: plain(t, y), lambda: plain.calls),
    ]


@pytest.mark.parametrize("i", range(6))
def test_calls_are_counted_wherever_func_counts_them(graphs, i):
    func, read = counters()[i]
    y = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for n in range(2):
        before = read()
        solution = solve(func, y, T, capture=True, **ADAPTIVE)
        solution.ys[-1].sum().backward()
        assert read() - before == solution.stats.f_calls_forward + solution.stats.f_calls_backward
        assert solution.stats.capture.recorded == 0 or n == 0  # a count is no part of the key


def test_calls_are_counted_as_a_module_counts_them(graphs):
    net = Scaled()
    y = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        net.calls = 0
        solution = solve(net, y, T, capture=True, **ADAPTIVE)
        solution.ys[-1].sum().backward()
        assert net.calls == solution.stats.f_calls_forward + solution.stats.f_calls_backward


class Noisy(nn.Module):
    """Holds noise that the caller draws for each solve, as a flow with Hutchinson's trace does."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 3, dtype=torch.float64)
        self.noise = torch.zeros(3, dtype=torch.float64)

    def forward(self, t, y):
        return torch.tanh(self.lin(y)) + self.noise


def test_programs_that_every_solve_records_anew_are_warned_of_once(recorded):
    net, kept = Noisy(), []
    with pytest.warns(RecordedAnewWarning, match="its tensors lie at other addresses") as given:
        for _ in range(12):
            net.noise = torch.randn(3, dtype=torch.float64)
            kept.append(net.noise)  # or the next one might get its address
            require_equal(net, tuple(net.parameters()), **FIXED)
    assert len([x for x in given if x.category is RecordedAnewWarning]) == 1


def test_noise_that_is_drawn_in_place_needs_no_new_programs(recorded):
    net = Noisy()
    require_equal(net, tuple(net.parameters()), **FIXED)
    before = len(recorded)
    for _ in range(8):
        net.noise.normal_()
        require_equal(net, tuple(net.parameters()), **FIXED)
    assert len(recorded) == before


def test_auto_gives_up_what_every_solve_would_record_anew(recorded, monkeypatch):
    monkeypatch.setattr("symplectic_adjoint.arguments.may_capture_on", lambda y: True)
    net, kept, y, found = Noisy(), [], torch.ones(2, 3, dtype=torch.float64), []
    for _ in range(12):
        net.noise = torch.randn(3, dtype=torch.float64)
        kept.append(net.noise)
        found.append(solve(net, y, T, capture="auto", **FIXED).stats.capture)
    assert found[0].fallback is None
    assert "recorded anew" in found[-1].fallback
    assert found[-1].recorded == 0


def periodic(rate):
    """Return a func whose number does not show at t = 0, read where no key has it."""
    lin = nn.Linear(3, 3, dtype=torch.float64)

    class Driven:
        def __call__(self, t, y):
            return torch.tanh(lin(y)) + self.drive(t)

        def drive(self, t):
            return RATES["of a method"][0] * torch.sin(2 * torch.pi * t)

    RATES["of a method"] = [rate]
    return Driven(), tuple(lin.parameters())


RATES = {"of a method": [1.0]}


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
def test_a_number_that_shows_neither_at_the_start_nor_at_the_end(recorded, keywords):
    func, params = periodic(1.0)
    for rate in (1.0, 3.0, 0.2):
        RATES["of a method"] = [rate]
        require_equal(func, params, **keywords)


@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
def test_a_parameter_that_func_also_reaches_through_a_list(recorded, keywords):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 3, dtype=torch.float64)
            self.held = [self.lin.weight]

        def forward(self, t, y):
            return torch.tanh(self.lin(y)) + y @ self.held[0]

    net = Twice()
    require_equal(net, tuple(net.parameters()), **keywords)
    direct = {"w": net.lin.weight, "b": net.lin.bias}

    def functional(t, y):
        return torch.tanh(torch.func.functional_call(net.lin, {"weight": direct["w"], "bias": direct["b"]}, (y,)))

    require_equal(functional, tuple(net.parameters()), **keywords)


def test_the_parts_of_a_state_are_part_of_the_key(recorded):
    weight = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def func(t, state):
        a, b = state
        return weight * a * a.sum(), -weight * b

    for sizes in ((6, 2), (2, 6)):
        state = tuple(torch.linspace(0.1, 0.3, n, dtype=torch.float64) for n in sizes)
        got, expected = (
            torch.autograd.grad(sum(x[-1].sum() for x in odeint(func, state, T, capture=capture, **FIXED)), weight)[0]
            for capture in (True, False)
        )
        torch.testing.assert_close(got, expected, **ROUNDING)


def test_a_change_in_a_small_part_or_in_low_precision_is_found(recorded):
    rates = {"now": 1.0}

    class Hidden:
        def __call__(self, x):
            return rates["now"] * x

    scale = Hidden()

    def func(t, state):
        a, b = state
        return 1e6 * torch.cos(a), scale(torch.cos(b))

    state = torch.zeros(3), torch.zeros(3)
    for rates["now"] in (1.0, 1.8):
        got, expected = (odeint(func, state, T, capture=capture, **FIXED)[1] for capture in (True, False))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_programs_recorded_while_func_was_another_one_are_forgotten(recorded):
    rates, lin = {"now": 1.0}, nn.Linear(3, 3, dtype=torch.float64)

    class Rate:
        def __call__(self):
            return rates["now"]

    rate = Rate()

    def func(t, y):
        return torch.tanh(lin(y)) * rate()

    y = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    ys = odeint(func, y, T, capture=True, **FIXED)
    rates["now"] = 2.0
    with pytest.raises(FunctionChanged):
        ys[-1].sum().backward()
    rates["now"] = 1.0
    require_equal(func, tuple(lin.parameters()), **FIXED)


def test_solves_in_inference_mode_leave_programs_that_train(recorded):
    net = Scaled()
    with torch.inference_mode():
        odeint(net, torch.ones(4, 3, dtype=torch.float64), T, capture=True, **ADAPTIVE)
    require_equal(net, tuple(net.parameters()), **ADAPTIVE)


def test_states_without_entries_and_solves_without_steps(recorded):
    net = Scaled()
    empty = torch.ones(0, 3, dtype=torch.float64, requires_grad=True)
    odeint(net, empty, T, capture=True, **ADAPTIVE).sum().backward()
    y = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for t in (T[:1], T[[0, 0]]):
        (bar,) = torch.autograd.grad(odeint(net, y, t, capture=True, **ADAPTIVE).sum(), y)
        assert torch.equal(bar, torch.full_like(y, len(t)))


def test_tensors_in_a_list_are_part_of_the_key_by_their_place(recorded):
    net, held = nn.Linear(3, 3, dtype=torch.float64), [torch.ones(3, dtype=torch.float64)]

    def func(t, y):
        return torch.tanh(net(y)) * held[0]

    y, counts = torch.ones(2, 3, dtype=torch.float64, requires_grad=True), []
    for _ in range(4):
        solution = solve(func, y, T, capture=True, **FIXED)
        solution.ys[-1].sum().backward()
        counts.append(solution.stats.capture.recorded)
    assert counts[1:] == [0, 0, 0]
