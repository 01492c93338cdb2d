"""What torchdiffeq's users rely on holds here too, with every gradient."""

import inspect
import math
from functools import cache, partial

import pytest
import torch
import torchdiffeq
from torch import nn

import symplectic_adjoint as sa
from tests.gradients import EXACT, STANDARD
from tests.oracle import leaves

# Our names of the methods that both have, and theirs.
SHARED = {
    "euler": "euler",
    "midpoint": "midpoint",
    "heun2": "heun2",
    "heun3": "heun3",
    "rk38": "rk4",
    "fehlberg2": "fehlberg2",
    "adaptive_heun": "adaptive_heun",
    "bosh3": "bosh3",
    "dopri5": "dopri5",
    "dopri8": "dopri8",
}
SINGLE = (torch.float32, torch.complex64)
ADAPTIVE = [name for name in SHARED if sa.METHODS[name].adaptive]
FIXED = [name for name in SHARED if not sa.METHODS[name].adaptive]


@pytest.fixture(params=STANDARD)
def gradient(request):
    return request.param


@pytest.fixture
def odeint(gradient):
    return partial(sa.odeint, gradient=gradient)


def times(*values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def tolerance_of(method, dtype):
    """Loose where many steps would be needed, and within the precision of the state."""
    if method == "fehlberg2":  # whose error estimate is a difference of slopes over 512, and flatters it
        return 1e-5
    if sa.METHODS[method].order < 3:
        return 1e-3
    return 1e-4 if sa.METHODS[method].order == 3 or dtype in SINGLE else 1e-7


def stepping(method, dtype):
    """Keywords for a solve that is about as accurate as tolerance_of says."""
    if sa.METHODS[method].adaptive:
        tolerance = tolerance_of(method, dtype)
        return {"method": method, "rtol": tolerance, "atol": tolerance}
    return {"method": method, "options": {"step_size": 0.1}}


def error_bound(method, dtype):
    """A step errs by its tolerance; over a unit of time and tens of steps that grows by some tens at most. On a
    fixed grid the error is a constant below 2 times h^order."""
    if sa.METHODS[method].adaptive:
        return (1000 if method == "fehlberg2" else 100) * tolerance_of(method, dtype)
    return max(2 * 0.1 ** sa.METHODS[method].order, 1e-5 if dtype in SINGLE else 0.0)


# Problems with closed solutions: f -> (y(t) from y0 at t = 0, dy(t)/dy0).


def constant(t, y):
    return torch.full_like(y, 0.7)


def sine(t, y):
    return torch.cos(t) * y


def linear(t, y):
    return -0.4 * y if not y.is_complex() else (-0.4 + 1.5j) * y


PROBLEMS = {
    constant: lambda t, y0: (y0 + 0.7 * t, 1.0),
    sine: lambda t, y0: (y0 * math.exp(math.sin(t)), math.exp(math.sin(t))),
    linear: lambda t, y0: (y0 * rate(t, y0), abs(rate(t, y0))),
}


def rate(t, y0):
    return torch.exp(torch.tensor(-0.4 + 1.5j if y0.is_complex() else -0.4, dtype=y0.dtype) * t)


def initial(dtype):
    y0 = torch.tensor([0.6, -1.1], dtype=torch.float64)
    return (y0 * (1 + 0.5j) if dtype.is_complex else y0).to(dtype).requires_grad_()


DTYPES = {torch.float32: 1.0, torch.float64: -1.0, torch.complex64: -1.0, torch.complex128: 1.0}  # and a direction


@pytest.mark.parametrize(
    ("method", "dtype", "direction"),
    [
        *((method, torch.float64, 1.0) for method in SHARED),
        *((method, *dtype) for method in ("rk38", "dopri5") for dtype in DTYPES.items()),
    ],
)
def test_closed_solutions_and_their_gradients(odeint, method, dtype, direction):
    t = direction * times(0.0, 0.4, 1.0)
    for func, solution in PROBLEMS.items() if dtype is torch.float64 else [(linear, PROBLEMS[linear])]:
        y0 = initial(dtype)
        ys = odeint(func, y0, t, **stepping(method, dtype))
        assert ys.dtype == dtype and ys.shape == (3, 2)
        ys[-1].abs().square().sum().backward()
        bound = error_bound(method, dtype)
        for time, y in zip(t.tolist(), ys.detach(), strict=True):
            expected, slope = solution(time, y0.detach())
            assert torch.allclose(y, expected, rtol=bound, atol=bound), (func.__name__, y, expected)
        # With L = |y(t)|^2 and y(t) = a y0 + b, torch's gradient, a complex one too, is 2 conj(a) y(t).
        a = rate(t[-1].item(), y0.detach()) if func is linear else torch.tensor(slope, dtype=dtype)
        assert torch.allclose(y0.grad, 2 * a.conj() * expected, rtol=4 * bound, atol=4 * bound), func.__name__


class Swing(nn.Module):
    """A driven pendulum-like field of any shape; on a tuple, part by part with one coupling."""

    def forward(self, t, y):
        if isinstance(y, tuple):
            first, second = y
            return torch.cos(t) * first, -torch.sin(second) * first.abs().mean()
        return torch.cos(3.0 * t) * torch.sin(y) - 0.2 * y


def swing_start(kind, dtype):
    first, second = torch.linspace(-1.0, 1.3, 3).to(dtype), torch.linspace(0.5, 2.0, 4).reshape(2, 2).to(dtype)
    return first if kind == "tensor" else (first, second)


def comparison(method, dtype, direction):
    """Times and keywords. On a fixed grid, the grid is t for both; their dopri8 has no outputs worth a comparison
    between its steps."""
    adaptive = sa.METHODS[method].adaptive
    t = direction * torch.linspace(0.0, 1.5, 2 if method == "dopri8" else 7, dtype=torch.float64)
    return t.to(dtype), stepping(method, dtype) if adaptive else {"method": method}


@cache
def theirs(method, dtype, direction, kind):
    t, keywords = comparison(method, dtype, direction)
    return torchdiffeq.odeint(Swing(), swing_start(kind, dtype), t, **keywords | {"method": SHARED[method]})


@pytest.mark.parametrize(
    ("method", "dtype", "kind", "direction"),
    [
        *((method, torch.float64, "tensor", -1.0) for method in SHARED),
        *((method, torch.float64, "tuple", 1.0) for method in SHARED),
        *((method, torch.float32, "tuple", -1.0) for method in ("rk38", "dopri5")),
    ],
)
def test_values_agree_with_torchdiffeqs(odeint, method, dtype, kind, direction):
    y0, (t, keywords) = swing_start(kind, dtype), comparison(method, dtype, direction)
    for part in leaves(y0):
        part.requires_grad_()
    ys = odeint(Swing(), y0, t, **keywords)
    rounding = 1e-5 if dtype is torch.float32 else 1e-13  # the same steps, added up in another order
    bound = error_bound(method, dtype) if sa.METHODS[method].adaptive else rounding
    assert isinstance(ys, torch.Tensor if kind == "tensor" else tuple)
    for ours, other in zip(leaves(ys), leaves(theirs(method, dtype, direction, kind)), strict=True):
        assert ours.shape == other.shape and ours.dtype == other.dtype
        assert torch.allclose(ours, other, rtol=bound, atol=bound)


@pytest.mark.parametrize("method", FIXED)
def test_gradients_on_a_fixed_grid_are_torchdiffeqs(gradient, method):
    """torchdiffeq.odeint, backpropagated, on the grid t; the continuous gradient misses it by the step's order."""

    def gradients(odeint, method):
        y0 = torch.linspace(-1.0, 1.3, 3, dtype=torch.float64, requires_grad=True)
        t = torch.linspace(0.0, 1.0, 11, dtype=torch.float64, requires_grad=True)
        ys = odeint(Swing(), y0, t, method=method)
        return torch.autograd.grad((ys * torch.linspace(0.1, 1.0, 11, dtype=torch.float64)[:, None]).sum(), [y0, t])

    expected = gradients(torchdiffeq.odeint, SHARED[method])
    bound = 1e-12 if gradient in EXACT else 20 * 0.1 ** sa.METHODS[method].order
    for got, want in zip(gradients(partial(sa.odeint, gradient=gradient), method), expected, strict=True):
        assert (got - want).norm() < bound * want.norm()


@pytest.mark.parametrize("method", SHARED)
def test_one_time_gives_the_initial_state_of_a_tuple_back_with_its_gradient(odeint, method):
    y0 = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
    ys = odeint(Swing(), y0, times(0.3), method=method)
    assert all(torch.equal(part, start[None]) for part, start in zip(ys, y0, strict=True))
    sum(part.sum() for part in ys).backward()
    assert all(torch.equal(start.grad, torch.ones_like(start)) for start in y0)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", ["euler", "midpoint", "heun3", "rk38", "bosh3", "dopri5", "dopri8"])
def test_gradcheck_of_y0_and_t_on_fixed_grids(gradient, method):
    y0 = torch.tensor([0.4, -0.9], dtype=torch.float64, requires_grad=True)
    t = times(0.0, 0.37, 0.9, requires_grad=True)

    def ys(y0, t):
        return sa.odeint(Swing(), y0, t, method=method, options={"step_size": 0.25}, gradient=gradient)

    # Differences of 1e-6 are good to 1e-9 here: they take no time over a grid point.
    assert torch.autograd.gradcheck(ys, (y0, t), atol=1e-7, rtol=1e-5, fast_mode=True)  # in a random direction


@pytest.mark.parametrize("gradient", EXACT)
def test_gradcheck_of_a_structure_and_of_complex_numbers(gradient):
    t = times(0.0, 0.4, 0.9, requires_grad=True)
    keywords = {"method": "rk38", "gradient": gradient}
    pair = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
    assert torch.autograd.gradcheck(
        lambda a, b, t: sa.odeint(Swing(), (a, b), t, **keywords), (*pair, t), fast_mode=True
    )
    y0 = initial(torch.complex128)
    assert torch.autograd.gradcheck(
        lambda y, t: sa.odeint(lambda t, y: 1j * torch.cos(t) * y, y, t, **keywords), (y0, t)
    )


class TestTolerancesOfParts:
    """rtol and atol may be the structure of the state, or a tensor like a part of it."""

    def solve(self, gradient, **tolerances):
        y0 = tuple(part.requires_grad_() for part in swing_start("tuple", torch.float64))
        return sa.solve(Swing(), y0, times(0.0, 2.0), gradient=gradient, method="dopri5", **tolerances)

    def test_the_strictest_part_decides_on_the_steps(self, gradient):
        loose = self.solve(gradient, rtol=1e-3, atol=1e-3).stats.accepted
        tight = self.solve(gradient, rtol=1e-9, atol=1e-9).stats.accepted
        mixed = [self.solve(gradient, rtol=pair, atol=pair).stats.accepted for pair in [(1e-9, 1e-3), (1e-3, 1e-9)]]
        assert loose < max(mixed) <= tight

    def test_equal_tolerances_of_parts_are_one_tolerance(self, gradient):
        one = self.solve(gradient, rtol=1e-6, atol=1e-8).grid
        of_parts = self.solve(gradient, rtol=(1e-6, 1e-6), atol=[1e-8, 1e-8]).grid
        as_tensors = self.solve(
            gradient, rtol=(torch.tensor(1e-6).double(), torch.full((2, 2), 1e-6).double()), atol=1e-8
        ).grid
        assert torch.equal(of_parts.h, one.h)
        assert torch.allclose(as_tensors.h, one.h, rtol=1e-6)  # as products of tensors they are rounded elsewhere

    def test_steps_are_as_many_as_torchdiffeqs(self, gradient):
        """The same estimate, norm and controller; what differs is how the end of the solve is met."""

        class Counting(Swing):
            accepted = 0

            def callback_accept_step(self, t0, y0, dt):
                self.accepted += 1

        func, tolerances = Counting(), {"rtol": (1e-7, 1e-4), "atol": (1e-9, 1e-4)}
        torchdiffeq.odeint(func, swing_start("tuple", torch.float64), times(0.0, 2.0), method="dopri5", **tolerances)
        assert abs(self.solve(gradient, **tolerances).stats.accepted - func.accepted) <= 2

    def test_a_tolerance_of_another_structure_is_refused(self, odeint):
        with pytest.raises(TypeError, match="rtol"):
            odeint(Swing(), swing_start("tuple", torch.float64), times(0.0, 1.0), rtol=(1e-3, 1e-3, 1e-3))


def test_norms_get_what_the_state_is(odeint):
    def shapes(y0, func):
        seen = set()

        def norm(y):
            seen.add((type(y), tuple(tuple(part.shape) for part in leaves(y))))
            return max(part.abs().max() for part in leaves(y))

        for part in leaves(y0):
            part.requires_grad_()
        ys = odeint(func, y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3, options={"norm": norm})
        sum(part.sum() for part in leaves(ys)).backward()
        return seen

    assert shapes(swing_start("tensor", torch.float64), Swing()) == {(torch.Tensor, ((3,),))}
    assert shapes(swing_start("tuple", torch.float64), Swing()) == {(tuple, ((3,), (2, 2)))}
    state = {"a": torch.ones(3, dtype=torch.float64), "b": torch.ones((), dtype=torch.float64)}
    seen = shapes(state, lambda t, y: {"a": -y["a"], "b": y["b"] * torch.cos(t)})
    assert seen == {(dict, ((3,), ()))}


class Kicked(nn.Module):
    """y' = -y before t = 1, +2 y after; counts its calls and remembers their times."""

    def __init__(self, at=1.0):
        super().__init__()
        self.at, self.times = at, []

    def forward(self, t, y):
        self.times.append(t.item())
        return torch.where(t < self.at, -1.0, 2.0) * y


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "dopri8"])
def test_jump_t_needs_fewer_f_calls_and_finds_the_solution(odeint, method):
    tolerance, bound = 1e-4, 1e-2  # 100 tolerances, as in error_bound

    def solve(options):
        func, y0 = Kicked(), torch.ones(2, dtype=torch.float64, requires_grad=True)
        ys = odeint(func, y0, times(0.0, 2.0), method=method, rtol=tolerance, atol=tolerance, options=options)
        forward = len(func.times)
        ys[-1].sum().backward()
        return forward, len(func.times) - forward, ys[-1], y0.grad

    without, with_jump = solve({}), solve({"jump_t": times(1.0)})
    assert with_jump[0] < without[0]
    assert with_jump[1] <= without[1]  # the way back steps over no jump either
    for value in with_jump[2:]:  # y(2) = e^(2 - 1) y0
        assert torch.allclose(value, torch.full((2,), math.e, dtype=torch.float64), rtol=bound)


@pytest.mark.parametrize("method", SHARED)
def test_func_is_never_called_at_a_jump_but_on_either_side_of_it(gradient, method):
    func, y0 = Kicked(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    options = {"jump_t": [1.0]} | ({} if sa.METHODS[method].adaptive else {"step_size": 0.3})
    solution = sa.solve(
        func, y0, times(0.0, 2.0), method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient
    )
    solution.ys.sum().backward()
    assert 1.0 not in func.times and math.nextafter(1.0, 2.0) in func.times
    # The continuous gradient starts there, on its way back.
    uses_the_end = gradient == "continuous" or 1.0 in [float(c) for c in sa.METHODS[method].c]
    assert (math.nextafter(1.0, 0.0) in func.times) == uses_the_end


@pytest.mark.parametrize(
    ("method", "direction"), [*((method, 1.0) for method in SHARED), ("dopri5", -1.0), ("rk38", -1.0)]
)
def test_step_t_is_stepped_on_in_either_direction_and_any_order(gradient, method, direction):
    wanted = [direction * x for x in (0.7, 0.1, 0.35, 5.0, -1.0)]  # the last two are outside and no matter
    options = {"step_t": torch.tensor(wanted)} | ({} if sa.METHODS[method].adaptive else {"step_size": 0.5})
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    solution = sa.solve(
        sine, y0, direction * times(0.0, 1.0), method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient
    )
    starts = solution.grid.t.tolist()
    assert all(float(torch.tensor(x)) in starts for x in wanted[:3])
    assert not solution.grid.open_start.any() and not solution.grid.open_end.any()
    solution.ys[-1].sum().backward()
    expected = torch.full((2,), math.exp(math.sin(direction)), dtype=torch.float64)
    assert torch.allclose(y0.grad, expected, rtol=0.4 if method == "euler" else 0.05)  # steps of up to 0.3


@pytest.mark.parametrize("option", ["jump_t", "step_t"])
def test_times_to_step_on_that_require_a_gradient_are_refused(odeint, option):
    with pytest.raises(ValueError, match=option):
        odeint(Swing(), torch.ones(2), times(0.0, 1.0), options={option: times(0.5, requires_grad=True)})


@pytest.mark.parametrize("method", FIXED)
def test_perturb_keeps_func_away_from_the_grid_points(odeint, method):
    def called_at(**options):
        func, y0 = Kicked(at=10.0), torch.ones(2, dtype=torch.float64, requires_grad=True)
        odeint(func, y0, times(0.0, 1.0), method=method, options={"step_size": 0.25, **options})[-1].sum().backward()
        return func.times

    grid = {0.0, 0.25, 0.5, 0.75, 1.0}
    assert grid & set(called_at()) and grid & set(called_at(perturb=False))
    perturbed = called_at(perturb=True)
    assert not grid & set(perturbed) and math.nextafter(0.25, 1.0) in perturbed


@pytest.mark.parametrize("method", FIXED)
def test_a_grid_constructor_is_asked_with_func_y0_and_t(odeint, method):
    asked = []

    def constructor(func, y0, t):
        asked.append((func(t[0], y0).shape, y0.shape, t.tolist()))
        return torch.linspace(0.0, 1.0, 5, dtype=torch.float64)

    func, y0, t = Swing(), swing_start("tensor", torch.float64), times(0.0, 0.6, 1.0)
    constructed = odeint(func, y0, t, method=method, options={"grid_constructor": constructor})
    assert asked == [((3,), (3,), [0.0, 0.6, 1.0])]
    assert torch.equal(constructed, odeint(func, y0, t, method=method, options={"step_size": 0.25}))
    theirs = torchdiffeq.odeint(
        func, y0, t, method=SHARED[method], options={"grid_constructor": constructor, "interp": "linear"}
    )
    ours = odeint(func, y0, t, method=method, options={"grid_constructor": constructor, "interp": "linear"})
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13)  # the same steps and the same straight line


@pytest.mark.parametrize("method", ADAPTIVE)
def test_steps_stay_between_min_step_and_max_step(gradient, method):
    def sizes(tolerance, **options):
        y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
        grid = sa.solve(
            Swing(), y0, times(0.0, 2.0), method=method, rtol=tolerance, atol=tolerance, options=options,
            gradient=gradient,
        ).grid  # fmt: skip
        return grid.h.abs()

    assert sizes(1e-1, max_step=0.08).max() <= 0.08
    coarse = sizes(1e-9, min_step=0.25)
    # Only the last step may be shorter, or longer by what would be left over.
    assert coarse[:-1].min() >= 0.25 * (1 - 1e-12) and len(coarse) <= 8


class CalledBack(Swing):
    """Remembers what its callbacks were told."""

    def __init__(self):
        super().__init__()
        self.told = {"step": [], "accept_step": [], "reject_step": []}

    def callback_step(self, t0, y0, dt):
        self.told["step"].append((float(t0), y0, float(dt)))

    def callback_accept_step(self, t0, y0, dt):
        self.told["accept_step"].append((float(t0), y0, float(dt)))

    def callback_reject_step(self, t0, y0, dt):
        self.told["reject_step"].append((float(t0), y0, float(dt)))

    def counts(self):
        return [len(told) for told in self.told.values()]


class TestCallbacks:
    """callback_step before every try, then callback_accept_step or callback_reject_step."""

    @pytest.mark.parametrize(("method", "direction"), [*((method, 1.0) for method in ADAPTIVE), ("dopri5", -1.0)])
    def test_every_try_is_accepted_or_rejected(self, gradient, method, direction):
        func, y0 = CalledBack(), torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)
        tolerance = 1e-3 if sa.METHODS[method].order < 3 else 1e-5
        keywords = {"method": method, "rtol": tolerance, "atol": tolerance, "options": {"first_step": 2.0}}
        solution = sa.solve(func, y0, direction * times(0.0, 2.0), gradient=gradient, **keywords)
        tried, accepted, rejected = func.counts()
        assert tried == accepted + rejected
        assert [accepted, rejected] == [solution.stats.accepted, solution.stats.rejected] and rejected > 0
        assert [(t0, dt) for t0, _, dt in func.told["accept_step"]] == list(
            zip(solution.grid.t.tolist(), solution.grid.h.tolist(), strict=True)
        )
        solution.ys.sum().backward()
        assert func.counts() == [tried, accepted, rejected]  # the way back is not called back on

    @pytest.mark.parametrize("method", FIXED)
    def test_on_a_fixed_grid_every_step_is_told_and_none_rejected(self, odeint, method):
        func = CalledBack()
        odeint(func, swing_start("tensor", torch.float64), times(0.0, 1.0), method=method, options={"step_size": 0.25})
        assert [t0 for t0, _, _ in func.told["step"]] == [0.0, 0.25, 0.5, 0.75]
        assert {dt for _, _, dt in func.told["step"]} == {0.25}
        assert len(func.told["reject_step"]) == 0

    def test_they_get_the_state_as_the_user_has_it(self, odeint):
        func, y0 = CalledBack(), swing_start("tuple", torch.float64)
        odeint(func, y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3)
        first = func.told["step"][0][1]
        assert isinstance(first, tuple) and all(torch.equal(a, b) for a, b in zip(first, y0, strict=True))

    def test_a_functions_own_callback_is_called_too(self, odeint):
        def func(t, y):
            return -y

        calls = []
        func.callback_step = lambda t0, y0, dt: calls.append(float(dt))
        odeint(func, torch.ones(2), times(0.0, 1.0), method="euler", options={"step_size": 0.5})
        assert calls == [0.5, 0.5]

    def test_an_adjoints_callback_is_called_by_the_continuous_gradient_and_refused_elsewhere(self, gradient):
        calls = []

        class Field(Swing):
            def callback_step_adjoint(self, t0, y0, dt):
                calls.append(float(dt))

        y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
        if gradient != "continuous":
            with pytest.raises(sa.UnsupportedCombination, match="callback_step_adjoint"):
                sa.odeint(Field(), y0, times(0.0, 1.0), gradient=gradient)
            return
        ys = sa.odeint(Field(), y0, times(0.0, 1.0), rtol=1e-3, atol=1e-3, gradient=gradient)
        assert not calls
        ys[-1].sum().backward()
        assert calls and all(dt < 0 for dt in calls)


G = 9.81


class Falling(nn.Module):
    """A ball: height and velocity, as one tensor or as a pair."""

    def __init__(self, g=G):
        super().__init__()
        self.g = nn.Parameter(torch.tensor(g, dtype=torch.float64))

    def forward(self, t, y):
        velocity = y[1]
        slopes = velocity, -self.g * torch.ones_like(velocity)
        return slopes if isinstance(y, tuple) else torch.stack(slopes)


def height(t, y):
    return y[0]


# The ball's path is a parabola, which all methods of order 2 and more follow exactly, and cubic outputs too; the
# event's time is bracketed to about atol. The continuous gradient solves the adjoint to its own tolerance.
EVENT = {"rtol": 1e-9, "atol": 1e-10}
EVENT_BOUND = 1e-6


def rolls(t, y):
    """A quarter turn: y = (cos t, sin t) from (1, 0)."""
    return torch.stack([-y[1], y[0]])


class TestEvents:
    """odeint_event: where event_fn changes sign, with gradients through the time of it."""

    @pytest.mark.parametrize("direction", [1.0, -1.0])
    @pytest.mark.parametrize("kind", ["tensor", "tuple"])
    def test_time_and_state_of_a_fall_and_their_gradients(self, odeint, kind, direction):
        ball = Falling()
        h, t0 = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, 0.5))
        y0 = (h, torch.zeros_like(h)) if kind == "tuple" else torch.stack([h, torch.zeros_like(h)])
        event_t, ys = sa.odeint_event(
            ball, y0, t0, event_fn=height, reverse_time=direction < 0, odeint_interface=odeint, **EVENT
        )
        fall = math.sqrt(2 * 3.0 / G)
        assert event_t.item() == pytest.approx(0.5 + direction * fall, abs=EVENT_BOUND)
        assert len(ys[0]) == 2 if kind == "tuple" else ys.shape == (2, 2)
        end = [part[-1] for part in ys] if kind == "tuple" else ys[-1]
        assert abs(end[0].item()) < EVENT_BOUND
        assert end[1].item() == pytest.approx(-direction * math.sqrt(2 * G * 3.0), abs=EVENT_BOUND)
        of_time = torch.autograd.grad(event_t, [h, t0, ball.g], retain_graph=True)
        # t = t0 + sqrt(2 h / g): dt/dh = 1 / sqrt(2 g h), dt/dt0 = 1, dt/dg = -sqrt(h / (2 g^3))
        expected = [direction / math.sqrt(2 * G * 3.0), 1.0, -direction * math.sqrt(3.0 / (2 * G**3))]
        assert [float(x) for x in of_time] == pytest.approx(expected, abs=EVENT_BOUND)
        # v = -sqrt(2 g h): dv/dh = -sqrt(g / (2 h)), dv/dg = -sqrt(h / (2 g)); where it starts in time is no matter
        of_velocity = torch.autograd.grad(end[1], [h, t0, ball.g], allow_unused=True, materialize_grads=True)
        expected = [-direction * math.sqrt(G / (2 * 3.0)), 0.0, -direction * math.sqrt(3.0 / (2 * G))]
        assert [float(x) for x in of_velocity] == pytest.approx(expected, abs=EVENT_BOUND)

    def test_parameters_of_the_event_function_get_their_gradient(self, odeint):
        class Floor(nn.Module):
            def __init__(self):
                super().__init__()
                self.at = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

            def forward(self, t, y):
                return y[0] - self.at

        floor, closure = Floor(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
        for event_fn, level in ((floor, floor.at), (lambda t, y: y[0] - closure, closure)):
            event_t, ys = sa.odeint_event(
                Falling(), y0, times(0.0)[0], event_fn=event_fn, odeint_interface=odeint, **EVENT
            )
            of_time, of_height = (torch.autograd.grad(x, level, retain_graph=True)[0] for x in (event_t, ys[-1, 0]))
            assert of_time.item() == pytest.approx(-1 / math.sqrt(2 * G * 2.0), abs=EVENT_BOUND)
            assert of_height.item() == pytest.approx(1.0, abs=EVENT_BOUND)  # it ends on the floor, wherever that is

    @pytest.mark.parametrize("method", [*ADAPTIVE, "midpoint", "rk38", "dop853"])
    def test_every_method_finds_it(self, odeint, method):
        keywords = stepping(method, torch.float64)
        y0 = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        event_t, ys = sa.odeint_event(
            rolls, y0, times(0.0)[0], event_fn=lambda t, y: y[0], odeint_interface=odeint, **keywords
        )
        bound = error_bound(method, torch.float64)
        assert event_t.item() == pytest.approx(math.pi / 2, abs=bound)
        assert torch.allclose(ys[-1], torch.tensor([0.0, 1.0], dtype=torch.float64), atol=bound)
        # A start turned by a is at the event earlier by a; a start farther out ends farther out, on the other axis.
        of_time = torch.autograd.grad(event_t, y0, retain_graph=True)[0]
        of_end = torch.autograd.grad(ys[-1, 1], y0)[0]
        assert torch.allclose(of_time, torch.tensor([0.0, -1.0], dtype=torch.float64), atol=4 * bound)
        assert torch.allclose(of_end, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=4 * bound)

    def test_of_several_event_functions_the_first_to_change_sign_counts(self, odeint):
        def event_fn(t, y):
            return torch.stack([y[0] - 1.0, y[1] + 2.0, t - 5.0])  # the velocity reaches -2 first, at t = 2 / g

        y0 = torch.tensor([3.0, 0.0], dtype=torch.float64, requires_grad=True)
        event_t, _ = sa.odeint_event(Falling(), y0, times(0.0)[0], event_fn=event_fn, odeint_interface=odeint, **EVENT)
        assert event_t.item() == pytest.approx(2 / G, abs=EVENT_BOUND)
        # A ball that starts faster by dv is there earlier by dv / g, whatever its height.
        assert torch.allclose(
            torch.autograd.grad(event_t, y0)[0], torch.tensor([0.0, 1 / G]).double(), atol=EVENT_BOUND
        )

    @pytest.mark.parametrize("gradient", EXACT)
    @pytest.mark.parametrize("method", ["rk38", "dopri8"])  # of which one interpolates and one lands on the event
    def test_on_a_fixed_grid_the_gradient_is_that_of_the_steps_however_long(self, gradient, method):
        def event(y0, t0):
            return sa.odeint_event(
                lambda t, y: torch.cos(t) * rolls(t, y), y0, t0, event_fn=lambda t, y: y[0] - 0.2 * t - 0.4,
                method=method, options={"step_size": 0.4}, gradient=gradient,
            )  # fmt: skip

        y0 = torch.tensor([1.0, 0.1], dtype=torch.float64, requires_grad=True)
        t0 = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
        # Good to 1e-8: the event is located to a few units in the last place, divided by differences of 1e-6.
        assert torch.autograd.gradcheck(event, (y0, t0), atol=1e-6, rtol=1e-6, fast_mode=True)

    @pytest.mark.parametrize("reverse_time", [False, True])
    def test_values_agree_with_torchdiffeqs(self, odeint, reverse_time):
        def event_fn(t, y):
            return y.sum() - 0.5 * torch.cos(t) - 0.4

        arguments = (rolls, torch.tensor([1.0, 0.2], dtype=torch.float64), times(0.1)[0])
        keywords = {"event_fn": event_fn, "reverse_time": reverse_time, **EVENT}
        ours = sa.odeint_event(*arguments, odeint_interface=odeint, **keywords)
        other = torchdiffeq.odeint_event(*arguments, **keywords)
        assert torch.allclose(ours[0], other[0], atol=EVENT_BOUND)
        assert torch.allclose(ours[1], other[1], atol=EVENT_BOUND)

    def test_odeint_with_event_fn_takes_start_and_direction_from_two_times(self, odeint):
        y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
        for t in (times(0.0, 1.0), times(0.0, 1e-3)):  # only the direction of the second one counts
            event_t, ys = odeint(Falling(), y0, t, event_fn=height, **EVENT)
            assert event_t.item() == pytest.approx(math.sqrt(2 * 3.0 / G), abs=EVENT_BOUND)
            assert ys.shape == (2, 2) and torch.equal(ys[0], y0)
        with pytest.raises(ValueError, match="event"):
            odeint(Falling(), y0, times(0.0, 1.0, 2.0), event_fn=height, **EVENT)

    def test_a_fixed_method_needs_a_step_size(self, odeint):
        with pytest.raises(ValueError, match="step_size"):
            odeint(Falling(), torch.tensor([3.0, 0.0]).double(), times(0.0, 1.0), method="rk38", event_fn=height)

    @pytest.mark.parametrize("keywords", [{"options": {"max_num_steps": 30}}])
    def test_an_event_that_does_not_come_is_an_error_with_a_name(self, odeint, keywords):
        with pytest.raises(sa.EventNotFound):
            odeint(
                rolls, torch.tensor([1.0, 0.0]).double(), times(0.0, 1.0), event_fn=lambda t, y: y[0] + 2.0, **keywords
            )

    def test_a_second_derivative_through_an_event_is_refused(self, odeint):
        h = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        event_t, _ = sa.odeint_event(
            Falling(), torch.stack([h, 0 * h]), times(0.0)[0], event_fn=height, odeint_interface=odeint, **EVENT
        )
        with pytest.raises(sa.UnsupportedCombination, match="create_graph"):
            torch.autograd.grad(event_t, h, create_graph=True)


class TestDenseOutput:
    """odeint_dense: a function of time, with gradients."""

    @pytest.mark.parametrize(
        ("method", "direction"),
        [*((method, 1.0) for method in ("adaptive_heun", "bosh3", "tsit5", "dop853")), ("dopri5", -1.0)],
    )
    def test_is_as_accurate_as_the_steps_at_any_time(self, gradient, method, direction):
        y0, t = initial(torch.float64), direction * torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
        keywords = stepping(method, torch.float64)
        dense = sa.odeint_dense(sine, y0, t[0], t[-1], gradient=gradient, **keywords)
        ys = dense(t.requires_grad_())
        bound = error_bound(method, torch.float64)
        growth = torch.exp(torch.sin(t.detach()))
        assert torch.allclose(ys, y0 * growth[:, None], rtol=bound, atol=bound)
        at_once = dense(t[7].detach())
        assert at_once.shape == (2,) and torch.allclose(at_once, ys[7], rtol=1e-12)
        of_y0, of_t = torch.autograd.grad(ys[6].sum(), [y0, t])
        assert torch.allclose(of_y0, growth[6].expand(2), rtol=bound, atol=bound)
        # Its slope is f, but for one order of accuracy.
        slope = float((torch.cos(t[6]) * ys[6].sum()).detach())
        assert float(of_t[6]) == pytest.approx(slope, rel=10 * bound) and not of_t[7:].any()

    def test_of_a_method_without_one_is_refused(self, gradient):
        with pytest.raises(sa.UnsupportedCombination, match="dopri8"):
            sa.odeint_dense(sine, initial(torch.float64), 0.0, 1.0, method="dopri8", gradient=gradient)

    @pytest.mark.parametrize("method", FIXED)
    def test_of_fixed_steps_passes_through_them(self, odeint, gradient, method):
        y0, t = initial(torch.float64), torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
        keywords = {"method": method, "options": {"step_size": 0.25}}
        dense = sa.odeint_dense(sine, y0, t[0], t[-1], gradient=gradient, **keywords)
        assert torch.allclose(dense(t), odeint(sine, y0, t, **keywords), rtol=1e-13)

    def test_has_gradients_of_parameters(self, gradient):
        ball, y0 = Falling(), torch.tensor([3.0, 0.0], dtype=torch.float64)
        dense = sa.odeint_dense(ball, y0, times(0.0)[0], times(1.0)[0], gradient=gradient, **EVENT)
        (of_g,) = torch.autograd.grad(dense(times(0.6)[0])[0], ball.g)
        assert of_g.item() == pytest.approx(-0.5 * 0.6**2, abs=EVENT_BOUND)  # height 3 - g t^2 / 2

    def test_agrees_with_torchdiffeqs(self, gradient):
        y0, t = swing_start("tensor", torch.float64), torch.linspace(0.0, 1.4, 15, dtype=torch.float64)
        arguments = (Swing(), y0, times(0.0)[0], times(1.5)[0])
        ours = sa.odeint_dense(*arguments, rtol=1e-8, atol=1e-9, gradient=gradient)(t)
        other = torchdiffeq.odeint_dense(*arguments, rtol=1e-8, atol=1e-9)
        # Their function takes one time at a time; 4th order outputs of steps that err by 1e-8.
        assert torch.allclose(ours, torch.stack([other(time) for time in t]), atol=1e-5)


@pytest.fixture
def warnings_are_never_swallowed():
    """torch gives some of its warnings once a process only, to whichever test comes first."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("warnings_are_never_swallowed")
class TestTimesThatRequireAGradient:
    """Numbers are taken from them in many places, never with torch's warning of a lost gradient (an error here)."""

    @pytest.mark.parametrize("options", [{"jump_t": [0.4]}, {"step_t": [0.4]}, {"step_size": 0.3, "perturb": True}])
    def test_are_stepped_through(self, odeint, options):
        t = times(0.0, 0.6, 1.0, requires_grad=True)
        odeint(Swing(), initial(torch.float64), t, options=options, rtol=1e-3, atol=1e-3)[-1].sum().backward()
        assert t.grad[2] != 0

    @pytest.mark.parametrize("method", ["dopri5", "dopri8", "rk38"])
    def test_start_the_way_to_an_event(self, odeint, method):
        t = times(0.0, 1.0, requires_grad=True)
        options = {} if sa.METHODS[method].adaptive else {"step_size": 0.1}
        y0 = torch.tensor([3.0, 0.0], dtype=torch.float64)
        odeint(Falling(), y0, t, event_fn=height, method=method, options=options, **EVENT)[0].backward()
        assert t.grad.tolist() == pytest.approx([1.0, 0.0], abs=EVENT_BOUND)

    @pytest.mark.parametrize("options", [{}, {"step_size": 0.1}])
    def test_do_not_hide_an_error(self, odeint, options):
        def turns_nan(t, y):
            return torch.where(t < 0.5, 1.0, math.nan) * y

        t = times(0.0, 1.0, requires_grad=True)
        with pytest.raises(sa.NonFiniteError):
            odeint(turns_nan, initial(torch.float64), t, options=options)
        with pytest.raises(sa.TooManySteps):
            odeint(Swing(), initial(torch.float64), t, options={**options, "max_num_steps": 2})


THEIR_OTHER_METHODS = ["explicit_adams", "implicit_adams", "fixed_adams", "scipy_solver", "implicit_euler", "gl4"]


@pytest.mark.parametrize("method", THEIR_OTHER_METHODS)
def test_a_method_of_theirs_that_is_not_ours_is_refused_with_one_to_use(odeint, method):
    with pytest.raises(ValueError, match=method) as refusal:
        odeint(Swing(), torch.ones(2), times(0.0, 1.0), method=method)
    assert any(name in str(refusal.value).replace(method, "") for name in sa.METHODS)


@pytest.mark.parametrize("option", ["solver", "max_order", "nonsense", "stepsize"])
def test_an_option_that_is_not_ours_is_refused_not_warned_about(odeint, option):
    with pytest.raises(ValueError, match=option):
        odeint(Swing(), torch.ones(2), times(0.0, 1.0), options={option: 1})


class Mixed(nn.Module):
    """A field with a parameter and with a tensor from elsewhere."""

    def __init__(self, elsewhere=None):
        super().__init__()
        self.own = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.elsewhere = [elsewhere]  # in a list, so that the module does not register it

    def forward(self, t, y):
        extra = 0.0 if self.elsewhere[0] is None else self.elsewhere[0]
        return (self.own + extra) * torch.cos(t) * y


class TestOdeintAdjoint:
    """odeint_adjoint has torchdiffeq's signature; what belongs to a second solve goes to the continuous gradient."""

    def grads(self, odeint, func, inputs, **keywords):
        y0 = torch.tensor([1.0, -0.5], dtype=torch.float64)
        ys = odeint(func, y0, times(0.0, 1.0, 2.0), **{"rtol": 1e-6, "atol": 1e-8, **keywords})
        return torch.autograd.grad(ys[-1].sum(), inputs)

    def test_has_their_parameters_and_defaults(self):
        ours, other = (inspect.signature(f).parameters for f in (sa.odeint_adjoint, torchdiffeq.odeint_adjoint))
        for name, parameter in other.items():
            assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name

    def test_gives_the_gradient_that_was_asked_for(self, gradient):
        func = Mixed()
        expected = self.grads(sa.odeint, func, [func.own], gradient=gradient)
        assert torch.equal(self.grads(sa.odeint_adjoint, func, [func.own], gradient=gradient)[0], expected[0])

    def test_is_exact_unless_told_otherwise(self):
        func = Mixed()
        by_default = self.grads(sa.odeint_adjoint, func, [func.own])
        assert torch.equal(by_default[0], self.grads(sa.odeint, func, [func.own], gradient="symplectic")[0])

    def test_adjoint_params_are_added_to_funcs_own(self, gradient):
        elsewhere = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        func = Mixed(elsewhere)
        keywords = {"adjoint_params": iter([elsewhere]), "gradient": gradient}
        own, extra = self.grads(sa.odeint_adjoint, func, [func.own, elsewhere], **keywords)
        # y(2) = exp(0.5 sin 2) y0, and both enter as their sum.
        exact = math.sin(2.0) * math.exp(0.5 * math.sin(2.0)) * 0.5
        assert float(own) == pytest.approx(exact, abs=1e-4) and float(extra) == pytest.approx(float(own), rel=1e-12)

    @pytest.mark.parametrize("gradient", [name for name in STANDARD if name != "backprop"])  # which has the graph
    def test_a_tensor_in_neither_is_an_error(self, gradient):
        func = Mixed(torch.tensor(0.2, dtype=torch.float64, requires_grad=True))
        with pytest.raises(sa.LostGradient):
            self.grads(sa.odeint_adjoint, func, [func.own], gradient=gradient)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("adjoint_rtol", 1e-3),
            ("adjoint_atol", 1e-3),
            ("adjoint_method", "bosh3"),
            ("adjoint_options", {"norm": "seminorm"}),
        ],
    )
    def test_what_belongs_to_a_second_solve_is_refused_where_there_is_none(self, gradient, name, value):
        func, keywords = Mixed(), {name: value, "gradient": gradient}
        if gradient in EXACT:
            with pytest.raises(sa.UnsupportedCombination, match=name):
                self.grads(sa.odeint_adjoint, func, [func.own], **keywords)
        else:
            exact = math.sin(2.0) * math.exp(0.3 * math.sin(2.0)) * 0.5
            assert float(self.grads(sa.odeint_adjoint, func, [func.own], **keywords)[0]) == pytest.approx(
                exact, rel=1e-2
            )

    def test_the_second_solve_has_tolerances_and_a_method_of_its_own(self):
        def calls(odeint, **keywords):
            func, seen = Mixed(), []
            func.register_forward_hook(lambda *_: seen.append(1))
            y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
            ys = odeint(func, y0, times(0.0, 2.0), **{"rtol": 1e-6, "atol": 1e-6, "gradient": "continuous", **keywords})
            forward = len(seen)
            ys[-1].sum().backward()
            return forward, len(seen) - forward

        plain = calls(sa.odeint_adjoint)
        tight, loose = (calls(sa.odeint_adjoint, adjoint_rtol=tol, adjoint_atol=tol) for tol in (1e-11, 1e-2))
        assert plain[0] == tight[0] == loose[0] and loose[1] < plain[1] < tight[1]
        fixed = calls(sa.odeint_adjoint, adjoint_method="rk38", adjoint_options={"step_size": 0.5})
        assert fixed == (plain[0], 16)  # 4 steps of 4 stages
        assert calls(sa.odeint, gradient=sa.Continuous(rtol=1e-11, atol=1e-11)) == tight

    @pytest.mark.parametrize("interface", [sa.odeint_symplectic_adjoint, sa.odeint_checkpoint, sa.odeint_onecheckpoint])
    def test_the_reference_codes_names_are_presets_of_it(self, interface):
        func, preset = Mixed(), {
            sa.odeint_symplectic_adjoint: "symplectic",
            sa.odeint_checkpoint: "aca",
            sa.odeint_onecheckpoint: "baseline",
        }[interface]  # fmt: skip
        expected = self.grads(sa.odeint, func, [func.own], gradient=preset)
        assert torch.equal(self.grads(interface, func, [func.own])[0], expected[0])
        assert torch.equal(self.grads(interface, func, [func.own], adjoint_params=(func.own,))[0], expected[0])
