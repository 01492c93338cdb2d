"""For any field, state, times and options an exact gradient is autograd on the recorded grid.

Hypothesis draws the problems. `pytest --hypothesis-profile nightly` draws twenty times as many (tests/conftest.py).
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from torch import nn

from symplectic_adjoint import METHODS, solve
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gradients import EXACT
from tests.oracle import flatten, leaves, replay, unflatten

# Both sides do the same few thousand float64 operations in another order.
RELATIVE = 1e-12
# Gradients of a loss whose weights are at most 1 are sums of terms of the size of 1, which may cancel and leave their
# rounding errors. Dense output makes the largest: its weights are polynomials with coefficients up to 545 (dop853),
# good to 1e-13 each, and in the time gradients there are some tens of them.
FLOOR = 3e-12


class Drawn(nn.Module):
    """A field on the flattened state, with weights from a seed and the features that were drawn.

    `first` is used twice, `unused` never; with jumps, f is another function on either side of each. Weights are small
    enough for no solution to grow out of bounds in the time that it is given.
    """

    def __init__(self, kind, size, seed, stirred, jumps):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def parameter(*shape):
            scale = 0.5 / max(size, 1) ** 0.5 if len(shape) == 2 else 0.4
            return nn.Parameter(scale * torch.randn(*shape, dtype=torch.float64, generator=generator))

        self.kind, self.stirred, self.jumps = kind, stirred, jumps
        width = 4 if kind == "mlp" else size
        self.first, self.second = parameter(width, size), parameter(size, width)
        self.shift, self.drive = parameter(width), parameter(size)
        self.unused = parameter(2)

    def forward(self, t, y):
        k = unflatten(self.slope(t, flatten(y)), y)
        return tuple(k) if isinstance(k, list) else k  # func may return a tuple for a list

    def slope(self, t, y):
        kick = sum((torch.where(t > jump, 0.4, -0.3) for jump in self.jumps), torch.ones_like(t))
        if self.stirred:
            kick = kick * torch.cos(3.0 * t)
        return kick * self.of_state(y) + kick * self.drive

    def of_state(self, y):
        if self.kind == "mlp":
            hidden = torch.tanh(self.first @ y + self.shift)
            return self.second @ (hidden + 0.3 * (self.first @ y).sin())
        if self.kind == "polynomial":
            return self.first @ y - 0.02 * y * y + 0.2 * self.second @ (self.first @ y)
        if self.kind == "decoupled":
            return -self.shift * y
        return torch.zeros_like(y)  # "driven": f does not use its state


@dataclass
class Problem:
    """A problem as hypothesis drew it."""

    func: nn.Module
    y0: object
    t: torch.Tensor
    wants: dict[str, bool]
    as_module: bool
    keywords: dict[str, object] = field(default_factory=dict)
    weights: torch.Tensor | None = None


SHAPES = st.sampled_from([(), (1,), (3,), (2, 2), (0, 3)])


@st.composite
def states(draw, generator):
    def part():
        return torch.rand(draw(SHAPES), dtype=torch.float64, generator=generator) * 2 - 1

    kind = draw(st.sampled_from(["tensor", "tensor", "tuple", "list", "nested"]))
    if kind == "tensor":
        return part()
    if kind == "nested":
        return {"position": (part(), part()), "volume": {"log": part()}}
    parts = [part() for _ in range(draw(st.integers(1, 3)))]
    return tuple(parts) if kind == "tuple" else parts


GAPS = st.one_of(st.sampled_from([1e-9, 1e-5, 0.01, 0.25]), st.floats(0.05, 0.6))


@st.composite
def times(draw):
    """Up to six of them, over at most 1.5 units of time, some very close together."""
    gaps = draw(st.lists(GAPS, min_size=1, max_size=5))
    while sum(gaps) > 1.5:
        gaps.pop()
    offset, direction = draw(st.sampled_from([0.0, -0.4, 30.0])), draw(st.sampled_from([1.0, -1.0]))
    return [offset + direction * elapsed for elapsed in accumulate(gaps, initial=0.0)]


@st.composite
def times_beside(draw, times):
    """Draw times for jump_t and step_t: inside the span, on an output, at either end, outside, twice, in any order."""
    inside = st.floats(0.02, 0.98).map(lambda x: times[0] + x * (times[-1] - times[0]))
    outside = st.sampled_from([times[0] - 7.0, times[-1] + 7.0])
    return draw(st.lists(st.one_of(inside, inside, st.sampled_from(times), outside), min_size=1, max_size=3))


@st.composite
def grids(draw, method, times, stepping):
    """Options that say where to step."""
    span = times[-1] - times[0]
    kinds = ["step_size", "grid_points", *([] if METHODS[method].adaptive else ["t"])]
    kind = "control" if stepping == "adaptive" else draw(st.sampled_from(kinds))
    event(kind)
    options = {}
    if kind == "step_size":
        options["step_size"] = abs(span) / draw(st.floats(0.7, 6.0))
        options["perturb"] = draw(st.booleans())
    if kind == "grid_points":
        fractions = sorted(draw(st.sets(st.sampled_from([0.1, 0.2, 0.45, 0.5, 0.9]), max_size=4)))
        between = {times[0] + x * span for x in fractions}
        between |= set(draw(st.lists(st.sampled_from(times), max_size=2)))
        points = sorted(between | {times[0], times[-1]}, reverse=span < 0)
        options["grid_points"] = points if draw(st.booleans()) else torch.tensor(points, dtype=torch.float64)
    if kind == "control":
        options |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "first_step": st.floats(0.02, 0.5),
                    "max_step": st.floats(0.15, 0.5),
                    "min_step": st.just(0.02),
                    "controller": st.just("PI"),
                },
            )
        )
    if kind != "t":
        options |= draw(st.fixed_dictionaries({}, optional={"outputs": st.sampled_from(["land", "interpolate"])}))
    return options


@st.composite
def problems(draw, stepping):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    y0, t = draw(states(generator)), draw(times())
    method = draw(st.sampled_from([name for name in EXPLICIT_METHODS if stepping == "fixed" or METHODS[name].adaptive]))
    options = draw(grids(method, t, stepping))
    jumps = draw(times_beside(t)) if draw(st.integers(0, 2)) else []
    if jumps:
        options["jump_t"] = torch.tensor(jumps, dtype=torch.float64) if draw(st.booleans()) else jumps
    if draw(st.booleans()):
        options["step_t"] = draw(times_beside(t))
    kind = draw(st.sampled_from(["mlp", "polynomial", "decoupled", "driven"]))
    func = Drawn(kind, flatten(y0).numel(), draw(st.integers(0, 999)), draw(st.booleans()), jumps)
    wants = {"y0": draw(st.booleans()), "t": draw(st.booleans()), "params": draw(st.booleans())}
    if not any(wants.values()):
        wants["params"] = True
    func.requires_grad_(wants["params"])
    tolerance = draw(st.sampled_from([1e-2, 1e-4 if METHODS[method].order > 2 else 1e-3]))
    keywords = {"method": method, "rtol": tolerance, "atol": tolerance, "options": options}
    weights = 2 * torch.rand(len(t), flatten(y0).numel(), dtype=torch.float64, generator=generator) - 1
    weights[:, draw(st.integers(0, 3)) :: 4] = 0.0  # a loss need not use every component
    return Problem(func, y0, torch.tensor(t, dtype=torch.float64), wants, draw(st.booleans()), keywords, weights)


def ask_for(problem):
    """Fresh inputs, and those of them and of the parameters that a gradient is wanted of, by name."""
    y0 = unflatten(flatten(problem.y0), problem.y0)
    t = problem.t.clone().requires_grad_(problem.wants["t"])
    named = [(f"y0[{i}]", leaf.requires_grad_()) for i, leaf in enumerate(leaves(y0)) if problem.wants["y0"]]
    named += [("t", t)] if problem.wants["t"] else []
    named += [(name, p) for name, p in problem.func.named_parameters() if problem.wants["params"]]
    return y0, t, dict(named)


def gradients(problem, ys, inputs):
    flat = torch.cat([part.reshape(len(problem.t), -1) for part in leaves(ys)], dim=1)
    loss = (problem.weights * (flat + 0.5 * flat.sin())).sum()
    if not loss.requires_grad:
        return flat, dict.fromkeys(inputs)
    return flat, dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values()), allow_unused=True), strict=True))


def assert_close(name, got, expected):
    """Within RELATIVE of the whole tensor's norm plus FLOOR a component; nothing counts as zero."""
    if got is None or expected is None:
        assert all(x is None or not x.any() for x in (got, expected)), name
        return
    allowed = RELATIVE * expected.norm() + FLOOR * max(expected.numel(), 1) ** 0.5
    assert (got - expected).norm() <= allowed, (name, got, expected)


def call(func, t, y):
    """Call func from a plain function, in which the solver cannot find its parameters."""
    return func(t, y)


def same_structure(a, b):
    if isinstance(b, torch.Tensor):
        return isinstance(a, torch.Tensor) and a.shape[1:] == b.shape
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same_structure(a[name], b[name]) for name in b)
    return type(a) is type(b) and len(a) == len(b) and all(same_structure(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("stepping", ["fixed", "adaptive"])
@settings(max_examples=settings().max_examples // 2)  # of each, so that the profile's number is that of both
@given(data=st.data())
def test_every_exact_gradient_is_autograd_on_the_recorded_grid(stepping, data):
    problem = data.draw(problems(stepping))
    note(f"y0 = {problem.y0}, t = {problem.t.tolist()}, {problem.keywords}")
    expected = None
    for gradient in EXACT:
        y0, t, inputs = ask_for(problem)
        func, params = problem.func, None
        if not problem.as_module:
            func, params = partial(call, problem.func), tuple(problem.func.parameters())
        solution = solve(func, y0, t, gradient=gradient, params=params, **problem.keywords)
        assert same_structure(solution.ys, y0)
        if expected is None:
            assert_the_grid_is_sound(problem, solution)
            ys = replay(problem.func, METHODS[problem.keywords["method"]], solution.grid, y0, t)
            expected = gradients(problem, ys, inputs)
        flat, got = gradients(problem, solution.ys, inputs)
        assert_close(f"ys by {gradient}", flat, expected[0])
        for name, bar in got.items():
            assert_close(f"{name} by {gradient}", bar, expected[1][name])


def assert_the_grid_is_sound(problem, solution):
    """Assert that steps join from t[0] to t[-1], and end on every jump_t and step_t in between."""
    grid, times, options = solution.grid, problem.t.tolist(), problem.keywords["options"]
    ends = [*grid.t[1:].tolist(), times[-1]]
    assert float(grid.t[0]) == times[0]
    direction = 1.0 if times[-1] > times[0] else -1.0
    assert all(direction * (end - begin) > 0 for begin, end in pairwise([times[0], *ends]))
    jumps = torch.as_tensor(options.get("jump_t", []), dtype=torch.float64).tolist()
    for time in (*jumps, *options.get("step_t", [])):
        assert time in ends or direction * (time - times[0]) <= 0 or direction * (time - times[-1]) >= 0
    open_all = bool(options.get("perturb"))
    inside = [end for end in ends[:-1] if end in jumps]
    event(f"jumps inside: {len(inside)}")
    for n, end in enumerate(ends[:-1]):
        assert bool(grid.open_end[n]) == bool(grid.open_start[n + 1]) == (open_all or end in jumps)
