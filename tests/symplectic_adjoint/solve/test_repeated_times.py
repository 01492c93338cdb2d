"""A time that occurs more than once in t is the same output again, with its own cotangent and time gradient."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import GRADIENTS, METHODS
from tests.fields import Counted, SmallNet, start, weighted_loss
from tests.gradients import EXACT, OWN_STEPS
from tests.oracle import relative_error, replay

# Both sides do the same few hundred float64 operations in a different order: 1e-15 each, amplified a few hundred times.
ROUNDING = 1e-12
LOOSE = {"rtol": 1e-4, "atol": 1e-4}

SERIES = {
    "inside": [0.0, 0.5, 0.5, 1.0],
    "start": [0.0, 0.0, 0.0, 0.31, 1.0],
    "end": [0.0, 0.31, 1.0, 1.0],
    "everywhere": [0.0, 0.0, 0.2, 0.5, 0.5, 0.5, 0.52, 1.0, 1.0],
    "two": [0.0, 0.0, 1.0],
}
OPTIONS = {
    "adaptive": ("dopri5", {}),
    "adaptive-land": ("tsit5", {"outputs": "land"}),
    "lands-by-itself": ("dopri8", {}),
    "extra-stages": ("dop853", {"outputs": "interpolate"}),
    "jump": ("bosh3", {"jump_t": [0.5]}),
    "stop": ("dopri5", {"step_t": [0.5]}),
    "grid-is-t": ("rk4", {}),
    "step-size": ("rk38", {"step_size": 0.15}),
    "step-size-land": ("midpoint", {"step_size": 0.15, "outputs": "land"}),
    "grid-points": ("heun3", {"grid_points": [0.0, 0.1, 0.3, 0.3, 0.8, 1.0]}),
    "grid-constructor": ("dopri5", {"grid_constructor": lambda func, y0, t: t.detach()}),
}


def times(values, direction=1.0):
    return (direction * torch.tensor(values, dtype=torch.float64)).requires_grad_()


def mirrored(options, direction):
    moved = {name: [direction * x for x in value] for name, value in options.items() if isinstance(value, list)}
    return {**options, **moved}


def by_hand(t):
    """Return the distinct times, and for each entry of t the index of its own."""
    values = t.tolist()
    distinct = list(dict.fromkeys(values))
    return t.detach()[[values.index(x) for x in distinct]], [distinct.index(x) for x in values]


def sums_of_groups(grad_t, group):
    return torch.zeros(max(group) + 1, dtype=grad_t.dtype).index_add(0, torch.tensor(group), grad_t)


def gradients(ys, inputs):
    return torch.autograd.grad(weighted_loss(ys), inputs, allow_unused=True, retain_graph=True)


def assert_equal_to_autograd(func, y0, t, expected_ys, distinct, group, solution, tolerance=ROUNDING):
    assert relative_error(solution.ys, expected_ys) < ROUNDING
    got = gradients(solution.ys, [t, y0, *func.parameters()])
    want = gradients(expected_ys, [distinct, y0, *func.parameters()])
    assert relative_error(sums_of_groups(got[0], group), want[0]) < tolerance
    assert max(relative_error(a, b) for a, b in zip(got[1:], want[1:], strict=True)) < tolerance


@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("grid", OPTIONS)
def test_the_gradient_of_repeated_outputs_is_autograd_on_the_recorded_grid(grid, series, direction):
    method, options = OPTIONS[grid]
    func, y0, t = SmallNet(), start().requires_grad_(), times(SERIES[series], direction)
    distinct, group = by_hand(t)
    distinct.requires_grad_()
    known = {"method": method, "options": mirrored(options, direction), **LOOSE}
    # The steps are those over the distinct times.
    steps = sa.solve(func, y0, distinct, **known).grid
    expected = replay(func, METHODS[method], steps, y0, distinct)[group]
    for gradient in EXACT:
        solution = sa.solve(func, y0, t, gradient=gradient, **known)
        assert relative_error(solution.grid.h, steps.h) < ROUNDING and bool((solution.grid.h != 0.0).all())
        assert_equal_to_autograd(func, y0, t, expected, distinct, group, solution)


@pytest.mark.parametrize("options", [{}, {"step_size": 0.15}], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("gradient", [*OWN_STEPS, "continuous"])
def test_gradients_with_steps_of_their_own_have_repeated_outputs(gradient, series, options):
    func, y0, t = SmallNet(), start().requires_grad_(), times(SERIES[series])
    distinct, group = by_hand(t)
    distinct.requires_grad_()
    known = {"options": options, "gradient": gradient, **LOOSE}
    # Those of distinct times are tested against autograd elsewhere; reversing steps costs a few digits.
    expected = sa.odeint(func, y0, distinct, **known)[group]
    solution = sa.solve(func, y0, t, **known)
    assert_equal_to_autograd(func, y0, t, expected, distinct, group, solution)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_repetition_has_its_own_time_gradient(gradient):
    """Entry j of dL/dt is mu_j . f; the first entry of that time has the rest, which includes the steps' own terms."""
    func, y0 = SmallNet(), start().requires_grad_()
    t = times([0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0])
    ys = sa.odeint(func, y0, t, gradient=gradient, options={"step_size": 0.25})
    mu = torch.randn(ys.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (got,) = torch.autograd.grad(ys, t, mu)
    for j in (3, 4, 6):
        slope = func(t[j].detach(), ys[j].detach())
        assert got[j].item() == pytest.approx((mu[j] * slope).sum().item(), rel=1e-12)
    assert got[1].item() == 0.0


@pytest.mark.parametrize("gradient", [*GRADIENTS, sa.gradients.auto.Auto("1 GiB")], ids=str)
@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [0.3] * 4])
@pytest.mark.parametrize("options", [{}, {"step_size": 0.1}, {"grid_constructor": lambda func, y0, t: t.detach()}])
def test_without_a_span_every_output_is_y0_and_func_is_not_called(values, gradient, options):
    func, y0, t = Counted(SmallNet()), start().requires_grad_(), times(values)
    solution = sa.solve(func, y0, t, gradient=gradient, options=options)
    assert torch.equal(solution.ys, y0.expand_as(solution.ys)) and len(solution.ys) == len(values)
    loss = weighted_loss(solution.ys)
    (got,) = torch.autograd.grad(loss, y0, retain_graph=True)
    (want,) = torch.autograd.grad(weighted_loss(y0.expand_as(solution.ys)), y0)
    assert relative_error(got, want) < ROUNDING
    (bar,) = torch.autograd.grad(loss, t, allow_unused=True)
    assert bar is None or not bar.any()
    assert func.calls == 0 and len(solution.grid.h) == 0
    assert solution.grid.output_step.tolist() == [-1] * len(values)


def test_the_grid_has_an_entry_for_every_repetition_and_pins_the_first():
    t = times([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    solution = sa.solve(SmallNet(), start(), t, method="rk4")
    assert solution.t is t
    assert solution.grid.pinned_to.tolist() == [2, 4]
    assert solution.grid.output_step.tolist() == [-1, -1, 0, 0, 1, 1]
    assert solution.grid.output_sigma.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("gradient", ["symplectic", "mali", "reversible"])
def test_the_grid_is_enough_to_replay_every_repetition(gradient):
    func, y0, t = SmallNet(), start().requires_grad_(), times(SERIES["everywhere"])
    solution = sa.solve(func, y0, t, gradient=gradient, **LOOSE)
    pair = {"mali": ("leapfrog", 1.0), "reversible": ("coupled", GRADIENTS["reversible"].coupling)}.get(gradient)
    ys = replay(func, METHODS["dopri5"], solution.grid, y0, t, pair)
    assert relative_error(solution.ys, ys) < ROUNDING
    got, want = (gradients(x, [t, y0, *func.parameters()]) for x in (solution.ys, ys))
    _, group = by_hand(t)
    assert relative_error(sums_of_groups(got[0], group), sums_of_groups(want[0], group)) < ROUNDING
    assert max(relative_error(a, b) for a, b in zip(got[1:], want[1:], strict=True)) < ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex128, torch.complex64])
def test_states_of_every_dtype_repeat(dtype):
    t = times([0.0, 0.5, 0.5, 1.0])
    y0 = torch.tensor([1.0, -2.0], dtype=dtype, requires_grad=True)
    ys = sa.odeint(lambda t, y: -y, y0, t, options={"step_size": 0.25})
    assert torch.equal(ys[1], ys[2])
    (bar_t,) = torch.autograd.grad(ys.real.sum(), t)
    # The sum of y(t_j) is e^-t_j (1 - 2), and the level of float16 is 1e-3.
    assert bar_t[2:].tolist() == pytest.approx(torch.exp(-t[2:]).tolist(), rel=2e-3)


def test_a_backward_pass_can_be_repeated_and_batched():
    func, y0, t = SmallNet(), start().requires_grad_(), times(SERIES["everywhere"])
    ys = sa.odeint(func, y0, t, gradient="backprop", method="rk4")
    cotangents = torch.randn(3, *ys.shape, dtype=ys.dtype, generator=torch.Generator().manual_seed(5))
    each = [torch.autograd.grad(ys, (t, y0), mu, retain_graph=True) for mu in cotangents]
    batched = torch.autograd.grad(ys, (t, y0), cotangents, is_grads_batched=True)
    for i, name in enumerate(("t", "y0")):
        assert relative_error(batched[i], torch.stack([x[i] for x in each])) < ROUNDING, name


def test_times_that_are_equal_only_in_the_dtype_of_func_are_distinct():
    t = torch.tensor([0.0, 0.5, 0.5 + 1e-12, 1.0], dtype=torch.float64)
    solution = sa.solve(lambda t, y: -y, torch.ones(2), t, method="rk4")
    assert len(solution.grid.h) == 3


def test_repetitions_cost_no_f_call_unless_t_requires_a_gradient():
    t = torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], dtype=torch.float64)
    func, y0 = SmallNet(), start().requires_grad_()
    counts = []
    for used in (t[[0, 2, 4]], t, t.clone().requires_grad_()):
        solution = sa.solve(func, y0, used, **LOOSE)
        solution.ys.sum().backward()
        counts.append((solution.stats.f_calls_forward, solution.stats.f_calls_backward, solution.stats.vjps_backward))
    assert counts[1] == counts[0]
    assert counts[2] == (counts[0][0], counts[0][1] + 2, counts[0][2])  # f at 0.5 and at 1


def test_a_structured_state_repeats_in_its_structure():
    def func(t, y):
        return {"x": y["v"], "v": -y["x"] * t}

    y0 = {"x": start().requires_grad_(), "v": start(seed=2).requires_grad_()}
    t = times([0.0, 0.5, 0.5, 1.0])
    distinct = times([0.0, 0.5, 1.0])
    ys, expected = sa.odeint(func, y0, t), sa.odeint(func, y0, distinct)
    for name in ys:
        assert torch.equal(ys[name], expected[name][[0, 1, 1, 2]])
    got = torch.autograd.grad(weighted_loss(ys["x"]), [*y0.values(), t])
    want = torch.autograd.grad(weighted_loss(expected["x"][[0, 1, 1, 2]]), [*y0.values(), distinct])
    assert relative_error(sums_of_groups(got[2], [0, 1, 1, 2]), want[2]) < ROUNDING
    assert max(relative_error(a, b) for a, b in zip(got[:2], want[:2], strict=True)) < ROUNDING


@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_double_backward_is_that_of_outputs_which_move_along_f(gradient):
    func, t = SmallNet(), times([0.0, 0.5, 0.5, 1.0, 1.0])

    def loss(y0, t):
        return weighted_loss(sa.odeint(func, y0, t, method="rk4", gradient=gradient))

    y0 = start(batch=1).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda y0: sa.odeint(func, y0, t.detach(), method="rk4", gradient=gradient), (y0,)
    )
    hessian = torch.autograd.functional.hessian(loss, (y0.detach(), t.detach()))
    assert relative_error(hessian[0][1].reshape(3, 5), hessian[1][0].reshape(5, 3).T) < ROUNDING
    assert relative_error(hessian[1][1], hessian[1][1].T) < ROUNDING
    distinct, group = by_hand(t)
    parts = torch.autograd.functional.hessian(lambda s: loss(y0.detach(), s[group]), distinct)
    plain = torch.autograd.functional.hessian(
        lambda s: weighted_loss(sa.odeint(func, y0.detach(), s, method="rk4", gradient=gradient)[group]), distinct
    )
    assert relative_error(parts, plain) < ROUNDING


class Paced(torch.nn.Module):
    """A field whose output times are made of one of its parameters."""

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor([0.7, 1.3], dtype=torch.float64))

    def forward(self, t, y):
        return torch.tanh(self.rate * y * t) + self.rate


@pytest.mark.parametrize("gradient", ["symplectic", "baseline", "backprop", "reversible"])
def test_second_derivatives_reach_a_parameter_once_if_t_is_made_of_it(gradient):
    func, group = Paced(), [0, 1, 1, 2, 2]

    def twice(repeats):
        t = func.rate[0] * torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        ys = sa.odeint(func, func.rate * 2.0, t[group] if repeats else t, gradient=gradient, options={"step_size": 0.2})
        (first,) = torch.autograd.grad(weighted_loss(ys if repeats else ys[group]), func.rate, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), func.rate)

    for got, want in zip(twice(True), twice(False), strict=True):
        assert relative_error(got, want) < ROUNDING


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, in jvp
def test_torch_func_agrees_with_autograd():
    func, y0, t = SmallNet(), start(), times([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])

    def loss(y0, t):
        return weighted_loss(sa.odeint(func, y0, t, method="rk4"))

    leaf = y0.clone().requires_grad_()
    want = torch.autograd.grad(loss(leaf, t), (leaf, t))
    got = torch.func.grad(loss, argnums=(0, 1))(y0, t.detach())
    assert max(relative_error(a, b) for a, b in zip(got, want, strict=True)) < ROUNDING
    _, moved = torch.func.jvp(lambda t: loss(y0, t), (t.detach(),), (torch.ones_like(t),))
    assert moved.item() == pytest.approx(want[1].sum().item(), rel=1e-12)
    each = torch.vmap(lambda y: sa.odeint(func, y, t.detach(), method="rk4"))(y0)
    assert relative_error(each.transpose(0, 1), sa.odeint(func, y0, t.detach(), method="rk4")) < ROUNDING


def test_an_output_beyond_a_failure_is_nan_in_every_repetition():
    def func(t, y):
        return y * y * torch.ones_like(t)

    y0, t = torch.tensor([1.0], dtype=torch.float64, requires_grad=True), times([0.0, 0.5, 0.5, 2.0, 2.0])
    solution = sa.solve(func, y0, t, on_failure="return")
    assert solution.failure is not None
    assert solution.ys.isnan().flatten().tolist() == [False, False, False, True, True]
    assert solution.grid.output_step.shape == (3,)
    got = torch.autograd.grad(solution.ys[:3].sum(), (y0, t))
    assert got[0].item() == pytest.approx(1.0 + 2.0 / 0.25, rel=1e-5)  # y = y0 / (1 - y0 t)
    assert got[1].tolist() == pytest.approx([got[1][0].item(), 4.0, 4.0, 0.0, 0.0], rel=1e-5)


def test_where_f_is_not_finite_the_first_entry_has_the_whole_time_gradient():
    """Euler never calls f at the end, where this field is singular: the sum is finite, and stays so."""
    t = times([0.0, 0.5, 1.0, 1.0])
    ys = sa.odeint(lambda t, y: (2.0 - y) / (1.0 - t), torch.zeros(1, dtype=torch.float64), t, method="euler")
    (got,) = torch.autograd.grad(ys.sum(), t)
    assert got.isfinite().all() and got[3].item() == 0.0


def test_the_slope_of_a_repetition_at_a_jump_is_that_before_the_jump():
    t = times([0.0, 0.5, 0.5, 1.0])
    y0 = torch.zeros(1, dtype=torch.float64)
    ys = sa.odeint(lambda t, y: torch.where(t < 0.5, 1.0, 5.0).to(y).expand_as(y), y0, t, options={"jump_t": [0.5]})
    (got,) = torch.autograd.grad(ys[2].sum(), t)
    assert got.tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0], abs=1e-12)


def test_a_budget_counts_the_repeated_outputs():
    func, y0, t = SmallNet(), start(), torch.linspace(0, 1, 50, dtype=torch.float64).repeat_interleave(2)
    measured = sa.measure_memory(func, y0, t, gradient=sa.gradients.auto.Auto("200 KiB"), method="dopri5", **LOOSE)
    assert measured.peak_tensor_bytes <= 200 * 1024


@pytest.mark.parametrize("gradient", ["symplectic", "reversible"])
def test_the_diagnostics_take_repeated_times(gradient):
    func, y0, t = SmallNet(), start(), torch.tensor([0.0, 0.0, 0.5, 0.5, 1.0], dtype=torch.float64)
    assert sa.check_gradient(func, y0, t, gradient=gradient, **LOOSE).ok
    assert all(row.error < 1e-10 for row in sa.compare_gradients(func, y0, t, gradients=[gradient], **LOOSE).rows)
    assert sa.advise(func, y0, t, **LOOSE).steps > 0


def test_values_are_torchdiffeqs():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    func, y0, tight = SmallNet(), start(), {"rtol": 1e-10, "atol": 1e-10}
    with torch.no_grad():
        ours = sa.odeint(func, y0, t[[0, 0, 1, 1, 2, 2]], **tight)
        theirs = torchdiffeq.odeint(func, y0, t, **tight)[[0, 0, 1, 1, 2, 2]]
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "values", [[0.0, 1.0, 1.0, 0.5], [0.0, 0.0, -1.0, -0.5], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0, 1.0]]
)
def test_directions_do_not_mix(values):
    with pytest.raises(ValueError, match=r"t must be increasing or decreasing throughout \(times may repeat\)"):
        sa.odeint(lambda t, y: -y, start(), torch.tensor(values))


def test_the_search_for_an_event_needs_a_direction():
    with pytest.raises(ValueError, match=r"t\[1\] gives the direction of time, got t\[0\] = t\[1\] = 0.5"):
        sa.odeint(lambda t, y: -y, start(), torch.tensor([0.5, 0.5]), event_fn=lambda t, y: y.sum())


@pytest.mark.parametrize("reverse", [False, True])
def test_an_event_is_found_from_a_start_that_rounds_away_one(reverse):
    t0, sign = torch.tensor(1e8, dtype=torch.float32), -1.0 if reverse else 1.0
    found, _ = sa.odeint_event(
        lambda t, y: sign * torch.ones_like(y), torch.zeros(1), t0, event_fn=lambda t, y: y - 64.0, reverse_time=reverse
    )
    assert found.item() == 1e8 + sign * 64.0


def test_a_dense_solution_needs_a_span():
    with pytest.raises(ValueError, match=r"t0 and t1 must differ, got 0\.5 twice"):
        sa.odeint_dense(lambda t, y: -y, start(), 0.5, 0.5)


@pytest.mark.parametrize("gradient", ["backprop", sa.Auto("1 GiB")], ids=str)
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("times", [[0.0, 0.4, 0.4, 0.8], [0.0, 0.0, 0.8, 0.8]], ids=["inside", "ends"])
def test_what_func_reads_may_change_afterwards_where_the_solve_is_on_the_callers_graph(gradient, create_graph, times):
    """Plain autograd knows what func read: nothing of func is evaluated later."""
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def bars(changes):
        content, y0 = [1.0], start().requires_grad_()
        t = torch.tensor(times, dtype=torch.float64, requires_grad=True)
        ys = sa.odeint(
            lambda t, y: -rate * y * content[0] * torch.cos(t), y0, t, method="rk4", options={"step_size": 0.3},
            gradient=gradient,
        )  # fmt: skip
        if changes:
            content[0] = 9.0
        first = torch.autograd.grad(weighted_loss(ys), (y0, t, rate), create_graph=create_graph)
        return torch.autograd.grad(sum(x.square().sum() for x in first), (y0, t, rate)) if create_graph else first

    assert all(torch.equal(a, b) for a, b in zip(bars(True), bars(False), strict=True))
