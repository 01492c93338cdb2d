"""compile=True: a counter in func counts as in eager mode, and any other side effect is refused by name."""

import warnings

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ADAPTIVE = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-6}
FIXED = {"method": "midpoint", "options": {"step_size": 0.25}}
EQUAL = {"rtol": 1e-12, "atol": 1e-13}  # fused operations, in float64


@pytest.fixture(scope="module", autouse=True)
def _code_of_this_file_only():
    yield
    torch._dynamo.reset()


class Counting(SmallNet):
    def __init__(self):
        super().__init__()
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return super().forward(t, y)


class CountingOnTheClass(SmallNet):
    nfe = 0

    def forward(self, t, y):
        self.nfe = self.nfe + 1
        return super().forward(t, y)


class CountingTwice(nn.Module):
    """Counters of other steps, one in a part of the module, which is called twice."""

    def __init__(self):
        super().__init__()
        self.net, self.nfe = Counting(), 100.0

    def forward(self, t, y):
        self.nfe += 0.5
        return self.net(t, y) - 0.1 * self.net(2 * t, y)


class CountingObject:
    """No module: its network is found in params."""

    def __init__(self):
        self.net, self.nfe = SmallNet(), 0

    def parameters(self):
        return self.net.parameters()

    def __call__(self, t, y):
        self.nfe += 2
        return self.net(t, y)


def counts(func):
    return [x.nfe for x in (func, getattr(func, "net", None)) if hasattr(x, "nfe")]


def run(func, keywords, *, called=lambda func: func):
    """Return the counts before the solve, after it and after its backward pass, and the gradients."""
    y0, params = start().requires_grad_(), tuple(func.parameters())
    seen = [counts(func)]
    ys = sa.odeint(called(func), y0, T, params=params, **keywords)
    seen.append(counts(func))
    bars = torch.autograd.grad(weighted_loss(ys), (y0, *params), allow_unused=True)
    return [*seen, counts(func)], bars


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EQUAL)


@pytest.mark.parametrize(
    ("make", "keywords"),
    [(Counting, ADAPTIVE), (CountingOnTheClass, FIXED), (CountingTwice, FIXED)],
    ids=["adaptive", "on the class", "twice"],
)
def test_counts_are_those_of_eager_mode(make, keywords):
    eager, compiled = make(), make()
    for solve in range(3):
        expected, bars = run(eager, keywords)
        got, bars_of_code = run(compiled, {**keywords, "compile": True})
        assert got == expected, f"in solve {solve}"
        assert_same(bars_of_code, bars)
    assert [type(x) for x in counts(compiled)] == [type(x) for x in counts(eager)]


@pytest.mark.parametrize("gradient", ["stages", "revolve"])
def test_the_other_gradients_count_too(gradient):
    expected, _ = run(Counting(), {"gradient": gradient, **FIXED})
    assert run(Counting(), {"gradient": gradient, "compile": True, **FIXED})[0] == expected


@pytest.mark.parametrize(
    "called", [lambda func: func.forward, lambda func: lambda t, y: func(t, y)], ids=["method", "function"]
)
def test_the_counter_may_be_behind_a_method_or_a_function(called):
    expected, _ = run(Counting(), FIXED, called=called)
    assert run(Counting(), {"compile": True, **FIXED}, called=called)[0] == expected


def test_many_solves_do_not_recompile(monkeypatch):
    func = Counting()
    run(func, {"compile": True, **FIXED})
    compilations = []
    whole = torch._inductor.compile
    monkeypatch.setattr(torch._inductor, "compile", lambda *a, **k: compilations.append(1) or whole(*a, **k))
    for _ in range(12):  # more than the tracer's limit for one code
        func.nfe += 1000
        run(func, {"compile": True, **FIXED})
    assert not compilations


def test_a_counter_that_is_reset_between_the_passes_counts_from_there():
    results = []
    for compile in (False, True):
        func, y0 = Counting(), start().requires_grad_()
        ys = sa.odeint(func, y0, T, compile=compile, **FIXED)
        func.nfe = 0
        ys.sum().backward()
        results.append(func.nfe)
    assert results[0] == results[1] > 0


def test_an_object_may_count():
    expected, bars = run(CountingObject(), FIXED)
    got, bars_of_code = run(CountingObject(), {"compile": True, **FIXED})
    assert got == expected
    assert_same(bars_of_code, bars)


class Logging(SmallNet):
    def __init__(self):
        super().__init__()
        self.log = []

    def forward(self, t, y):
        self.log.append(1)
        return super().forward(t, y)


class CountingAndLogging(Counting):
    def __init__(self):
        super().__init__()
        self.seen = {}

    def forward(self, t, y):
        self.seen["calls"] = len(self.seen)
        return super().forward(t, y)


class Keeping(Counting):
    def forward(self, t, y):
        self.last_y = y
        return super().forward(t, y)


class Doubling(SmallNet):
    def __init__(self):
        super().__init__()
        self.number = 1

    def forward(self, t, y):
        self.number *= 2
        return super().forward(t, y)


class WarmingUp(Counting):
    def forward(self, t, y):
        k = super().forward(t, y)
        return k if self.nfe < 1000 else 2 * k


CALLS = 0


class CountingGlobally(SmallNet):
    def forward(self, t, y):
        global CALLS
        CALLS += 1
        return super().forward(t, y)


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (Logging(), r"changes func\.log"),
        (CountingAndLogging(), r"changes .*func\.seen"),
        (Keeping(), r"func sets func\.last_y"),
        (Doubling(), r"func does not raise func\.number by the same number"),
        (WarmingUp(), r"depends on a number that every call changes \(func\.nfe\)"),
        (CountingGlobally(), r"changes a global of .*test_call_counters"),
    ],
    ids=["list", "dict", "tensor", "no counter", "value", "global"],
)
def test_other_side_effects_are_refused_by_name_in_every_attempt(func, message):
    for _ in range(2):
        with pytest.raises(sa.UnsupportedCombination, match=message):
            sa.odeint(func, start(), T, compile=True, **FIXED)


def test_a_counter_is_no_warning_and_other_warnings_are_given():
    class Warns(Counting):
        def forward(self, t, y):
            if not torch.compiler.is_compiling():
                warnings.warn("called", stacklevel=1)
            return super().forward(t, y)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sa.odeint(Counting(), start(), T, compile=True, **FIXED)
    assert not [x for x in caught if "side effects" in str(x.message)]
    with pytest.warns(UserWarning, match="called"):
        sa.odeint(Warns(), start(), T, compile=True, **FIXED)
