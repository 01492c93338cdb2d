"""Recomputed calls equal those of the forward pass: noise, modes, buffers and autocast are those of the solve."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.fields import SmallNet, start, weighted_loss
from tests.gradients import EXACT, STANDARD
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
RECOMPUTING = [name for name in STANDARD if name != "backprop"]
ROUNDING = 1e-12  # as in test_exactness
APPROXIMATE = 1e-2  # the continuous gradient's error at these tolerances; other noise would make it 1
LOOSE = {"rtol": 1e-5, "atol": 1e-5}

every_gradient = pytest.mark.parametrize("gradient", STANDARD)
recomputing_gradients = pytest.mark.parametrize("gradient", RECOMPUTING)


class Field(nn.Module):
    """A linear layer, followed by the module under test."""

    def __init__(self, after):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, bias=False).double()  # a bias before a BatchNorm has no effect
        self.after = after

    def forward(self, t, y):
        return self.after(self.linear(y)) * torch.cos(t)


class Noise(nn.Module):
    """Multiplies by noise drawn at every call, and records the noise."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, y):
        noise = torch.randn(y.shape[-1], dtype=y.dtype)
        self.drawn.append(noise)
        return y * (1.0 + noise)


class Hutchinson(nn.Module):
    """(y, log density)' = (f, -e^T df/dy e) with a probe e drawn at every call."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()

    def forward(self, t, state):
        y, _ = state
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            probe = torch.randn_like(y)
            dy = self.net(t, y)
            (row,) = torch.autograd.grad(dy, y, probe, create_graph=True)
        return dy, -(row * probe).sum(1)


def noisy(name):
    if name == "hutchinson":
        return Hutchinson()
    return Field({"dropout": nn.Dropout(0.4), "noise": Noise()}[name])


def solve(func, y0=None, *, gradient, seed=None, **keywords):
    """Return ys as one tensor, also for Hutchinson's structured state."""
    if seed is not None:
        torch.manual_seed(seed)
    y0 = start() if y0 is None else y0
    if not isinstance(func, Hutchinson):
        return sa.odeint(func, y0, T, gradient=gradient, **{**LOOSE, **keywords})
    ys, logs = sa.odeint(func, (y0, y0.new_zeros(len(y0))), T, gradient=gradient, **{**LOOSE, **keywords})
    return torch.cat([ys, logs.unsqueeze(-1)], dim=-1)


def gradients(ys, func, *inputs):
    return torch.autograd.grad(weighted_loss(ys), [*inputs, *func.parameters()], allow_unused=True)


def assert_as_backprop(solution, gradient):
    """Assert that the gradient equals that of backprop, where solution(gradient) returns (ys, func, *other inputs)."""
    expected = gradients(*solution("backprop"))
    got = gradients(*solution(gradient))
    bound = ROUNDING if gradient in EXACT else APPROXIMATE
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    assert max(errors) < bound, errors
    assert any(x is not None and x.any() for x in expected)


@pytest.mark.parametrize("name", ["dropout", "noise", "hutchinson"])
class TestRandomNumbersInFunc:
    @every_gradient
    def test_give_the_gradient_for_the_numbers_drawn(self, name, gradient):
        def solution(gradient):
            func, y0 = noisy(name), start().requires_grad_()
            return solve(func, y0, gradient=gradient, seed=3), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_give_bitwise_equal_outputs_for_every_gradient(self, name, gradient):
        with torch.no_grad():
            plain = solve(noisy(name), gradient="symplectic", seed=3)
        assert torch.equal(solve(noisy(name), gradient=gradient, seed=3), plain)

    @every_gradient
    def test_do_not_advance_the_generator_in_the_backward_pass(self, name, gradient):
        func = noisy(name)
        ys = solve(func, gradient=gradient, seed=3)
        torch.manual_seed(11)
        before = torch.get_rng_state()
        gradients(ys, func)
        assert torch.equal(torch.get_rng_state(), before)

    @every_gradient
    def test_advance_the_generator_by_one_call_per_solve(self, name, gradient):
        func = noisy(name)
        solve(func, gradient=gradient, seed=3)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        func(T[0], (start(), start()[:, 0]) if name == "hutchinson" else start())
        assert torch.equal(torch.get_rng_state(), after)

    @every_gradient
    def test_differ_from_solve_to_solve(self, name, gradient):
        func = noisy(name)
        first, second = (solve(func, gradient=gradient) for _ in range(2))
        assert not torch.allclose(first[-1], second[-1])
        of_first, of_second = (gradients(ys, func) for ys in (first, second))
        assert not all(a is None or torch.allclose(a, b) for a, b in zip(of_first, of_second, strict=True))


@every_gradient
def test_every_call_of_a_solve_draws_the_same_noise(gradient):
    func = noisy("noise")
    drawn = func.after.drawn
    ys = solve(func, gradient=gradient)
    forward_calls = len(drawn)
    gradients(ys, func)
    assert forward_calls > 10 and (gradient == "backprop" or len(drawn) > forward_calls)
    assert all(torch.equal(noise, drawn[0]) for noise in drawn)


@recomputing_gradients
def test_the_backward_passes_of_two_solves_use_the_noise_of_each(gradient):
    def solution(gradient):
        func = noisy("dropout")
        torch.manual_seed(4)
        first = solve(func, gradient=gradient)
        return solve(func, first[-1], gradient=gradient), func

    assert_as_backprop(solution, gradient)


@pytest.mark.parametrize("gradient", EXACT)
def test_noise_is_the_same_in_second_derivatives(gradient):
    def second(gradient):
        func, y0 = noisy("dropout"), start(batch=1).requires_grad_()
        func.after.p = 0.2
        ys = solve(lambda t, y: func(t, y).sin(), y0, gradient=gradient, seed=5, params=(*func.parameters(),))
        (first,) = torch.autograd.grad(weighted_loss(ys), y0, create_graph=True)
        return torch.autograd.grad(first.square().sum(), func.linear.weight)[0]

    assert relative_error(second(gradient), second("backprop")) < 1e-11  # one order of derivatives more


@recomputing_gradients
def test_draws_that_begin_in_a_later_call_are_refused(gradient):
    net = SmallNet()

    def func(t, y):
        return net(t, y) + (torch.randn(3, dtype=y.dtype) if t > 0.5 else 0.0)

    fixed = {"method": "rk4", "options": {"step_size": 0.125}}
    with pytest.raises(sa.UnsupportedCombination, match=r"random numbers were drawn .* not in func's first call"):
        solve(func, gradient=gradient, params=(*net.parameters(),), **fixed)
    solve(func, gradient="backprop", **fixed).sum().backward()
    assert net.twice.grad is not None
    with torch.no_grad():
        solve(func, gradient=gradient, **fixed)


class TestBatchNorm:
    """Statistics are updated by the calls of the forward pass, and only by these."""

    @every_gradient
    def test_has_the_gradient_of_its_batches(self, gradient):
        def solution(gradient):
            func, y0 = Field(nn.BatchNorm1d(3).double()), start(batch=6).requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_in_evaluation_mode_has_the_gradient_of_its_statistics(self, gradient):
        def solution(gradient):
            func, y0 = Field(nn.BatchNorm1d(3).double()), start(batch=6).requires_grad_()
            func(T[0], 3.0 * start(seed=7) + 1.0)
            func.eval()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @every_gradient
    def test_is_updated_as_by_the_same_calls_without_a_solver(self, gradient):
        func, plain = (Field(nn.BatchNorm1d(3).double()) for _ in range(2))
        h, y = 0.2, start()
        ys = sa.odeint(func, y, T[[0, 2]], method="euler", options={"step_size": h}, gradient=gradient)
        with torch.no_grad():
            for n in range(5):
                y = y + h * plain(torch.tensor(n * h, dtype=torch.float64), y)
        assert func.after.num_batches_tracked == plain.after.num_batches_tracked == 5
        assert torch.allclose(ys[-1], y, rtol=1e-14)
        assert torch.allclose(func.after.running_mean, plain.after.running_mean, rtol=1e-14)
        assert torch.allclose(func.after.running_var, plain.after.running_var, rtol=1e-14)

    @every_gradient
    def test_gives_bitwise_equal_outputs_for_every_gradient(self, gradient):
        with torch.no_grad():
            plain = solve(Field(nn.BatchNorm1d(3).double()), gradient="symplectic")
        assert torch.equal(solve(Field(nn.BatchNorm1d(3).double()), gradient=gradient), plain)

    @every_gradient
    def test_counts_every_forward_call(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        solution = sa.solve(func, start(), T, gradient=gradient, **LOOSE)
        # One more call tests whether calls are repeatable, and its update is undone.
        difference = int(func.after.num_batches_tracked) - solution.stats.f_calls_forward
        assert difference == (0 if gradient == "backprop" else -1)

    @every_gradient
    def test_is_not_updated_by_the_backward_pass(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        ys = solve(func, gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        gradients(ys, func)
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @recomputing_gradients
    def test_is_not_updated_by_a_backward_pass_that_fails(self, gradient):
        func, calls_left = Field(nn.BatchNorm1d(3).double()), []

        def fail(module, arguments, output):
            if calls_left and not calls_left.pop():
                raise RuntimeError("stopped")

        func.after.register_forward_hook(fail)
        ys = solve(func, gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        calls_left[:] = [False, True, True]
        with pytest.raises(RuntimeError, match="stopped"):
            gradients(ys, func)
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @every_gradient
    def test_keeps_the_statistics_of_the_second_of_two_solves(self, gradient):
        func = Field(nn.BatchNorm1d(3).double())
        first, second = solve(func, gradient=gradient), solve(func, 2.0 * start(), gradient=gradient)
        before = [b.clone() for b in func.buffers()]
        (weighted_loss(first) + weighted_loss(second)).backward()
        assert all(torch.equal(a, b) for a, b in zip(func.buffers(), before, strict=True))

    @recomputing_gradients
    def test_whose_statistics_change_after_a_solve_in_evaluation_mode_is_refused(self, gradient):
        func = Field(nn.BatchNorm1d(3).double()).eval()
        ys = solve(func, gradient=gradient)
        func.train()
        func(T[0], start(seed=9))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            ys.sum().backward()


class Counting(nn.Module):
    """Counts its calls in a buffer: in place, or with a new tensor each time. Its value may depend on the count."""

    def __init__(self, *, in_place, depends=False):
        super().__init__()
        self.net = SmallNet()
        self.register_buffer("n", torch.zeros((), dtype=torch.float64))
        self.in_place, self.depends = in_place, depends

    def forward(self, t, y):
        if self.in_place:
            self.n += 1
        else:
            self.n = self.n + 1
        return self.net(t, y) * (1.0 + 0.01 * self.n if self.depends else 1.0)


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "new-tensor"])
class TestABufferThatFuncChanges:
    @every_gradient
    def test_counts_the_calls_of_the_forward_pass(self, in_place, gradient):
        func = Counting(in_place=in_place)
        ys = sa.odeint(func, start(), T, method="rk4", options={"step_size": 0.25}, gradient=gradient)
        # Four steps of four stages; one more call tests whether calls are repeatable, and its update is undone.
        assert func.n == 16
        counter = func.n
        gradients(ys, func)
        assert func.n == 16 and func.n is counter

    @every_gradient
    def test_but_does_not_read_is_harmless(self, in_place, gradient):
        def solution(gradient):
            func, y0 = Counting(in_place=in_place), start().requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)

    @recomputing_gradients
    def test_and_reads_is_refused_by_name(self, in_place, gradient):
        func = Counting(in_place=in_place, depends=True)
        with pytest.raises(sa.UnsupportedCombination, match=r"func changes buffers of its module \('n'\)"):
            solve(func, gradient=gradient)
        solve(func, gradient="backprop").sum().backward()
        assert func.net.twice.grad is not None
        with torch.no_grad():
            solve(func, gradient=gradient)


@recomputing_gradients
def test_a_buffer_that_func_fills_in_its_first_call_is_harmless(gradient):
    class Lazy(Counting):
        def __init__(self):
            super().__init__(in_place=True)
            self.register_buffer("scale", None)

        def forward(self, t, y):
            if self.scale is None:
                self.scale = torch.linspace(0.5, 1.0, 3, dtype=torch.float64)
            return super().forward(t, y) * self.scale

    def solution(gradient):
        func = Lazy()
        return solve(func, gradient=gradient), func

    assert_as_backprop(solution, gradient)


@recomputing_gradients
@pytest.mark.parametrize("change", [lambda b: b.mul_(2.0), lambda b: b.zero_()])
def test_a_buffer_that_func_reads_changed_between_the_passes_raises(change, gradient):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet()
            self.register_buffer("scale", torch.ones(3, dtype=torch.float64))

        def forward(self, t, y):
            return self.net(t, y) * self.scale

    func = Scaled()
    ys = solve(func, gradient=gradient)
    change(func.scale)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ys.sum().backward()


class Conditioned(nn.Module):
    """Reads an attribute that is set before each solve."""

    def __init__(self, encoder=None):
        super().__init__()
        self.net = SmallNet()
        self.encoder = encoder
        self.context = None

    def forward(self, t, y):
        return self.net(t, y) + torch.tanh(self.context)


@recomputing_gradients
@pytest.mark.parametrize("kind", ["data", "of-its-own-encoder", "of-an-encoder-outside"])
def test_an_attribute_replaced_between_the_passes_is_that_of_the_forward_pass(kind, gradient):
    def solution(gradient):
        torch.manual_seed(0)
        encoder, outputs = nn.Linear(2, 3).double(), []
        func = Conditioned(encoder if kind == "of-its-own-encoder" else None)
        for data in torch.randn(3, 4, 2, dtype=torch.float64):
            func.context = encoder(data) if kind != "data" else encoder(data).detach()
            params = (func.context,) if kind == "of-an-encoder-outside" else ()
            outputs.append(solve(func, gradient=gradient, params=params))
        func.context = None
        return torch.stack(outputs), nn.ModuleList([func, encoder])

    assert_as_backprop(solution, gradient)


SIZE = 8  # large enough for the power iteration not to have converged


def by_hook(linear):
    return nn.utils.spectral_norm(linear)


def by_parametrisation(linear):
    return nn.utils.parametrizations.spectral_norm(linear)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.spectral_norm` is deprecated")
@pytest.mark.parametrize("spectral_norm", [by_hook, by_parametrisation])
class TestSpectralNorm:
    """In training mode every call takes one step of a power iteration, so no call can be repeated."""

    class Net(nn.Module):
        def __init__(self, spectral_norm):
            super().__init__()
            torch.manual_seed(0)
            self.linear = spectral_norm(nn.Linear(SIZE, SIZE).double())

        def forward(self, t, y):
            return torch.tanh(self.linear(y))

    @recomputing_gradients
    def test_in_training_mode_is_refused_by_name(self, spectral_norm, gradient):
        func = self.Net(spectral_norm)
        with pytest.raises(sa.UnsupportedCombination, match=r"spectral norm in training mode .*Call func\.eval\(\)"):
            solve(func, start(size=SIZE), gradient=gradient)

    def test_in_training_mode_works_with_backprop(self, spectral_norm):
        func = self.Net(spectral_norm)
        weighted_loss(solve(func, start(size=SIZE), gradient="backprop")).backward()
        assert all(p.grad is not None and p.grad.any() for p in func.parameters())

    @every_gradient
    def test_in_evaluation_mode_works(self, spectral_norm, gradient):
        def solution(gradient):
            func, y0 = self.Net(spectral_norm).eval(), start(size=SIZE).requires_grad_()
            return solve(func, y0, gradient=gradient), func, y0

        assert_as_backprop(solution, gradient)


class TestTheTrainingMode:
    @every_gradient
    @pytest.mark.parametrize("training", [True, False])
    def test_of_the_forward_pass_is_used_in_the_backward_pass(self, training, gradient):
        def solution(gradient):
            func = Field(nn.Sequential(nn.BatchNorm1d(3).double(), nn.Dropout(0.4))).train(training)
            return solve(func, gradient=gradient, seed=3), func

        expected = gradients(*solution("backprop"))
        ys, func = solution(gradient)
        func.train(not training)
        got = gradients(ys, func)
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound
        assert all(module.training != training for module in func.modules())

    @every_gradient
    def test_of_a_submodule_is_its_own(self, gradient):
        func = Field(nn.Sequential(nn.BatchNorm1d(3).double(), nn.Dropout(0.4)))
        func.after[1].eval()
        ys = solve(func, gradient=gradient)
        func.eval()
        gradients(ys, func)
        assert not any(module.training for module in func.modules())


class Breaking(Field):
    """Returns NaN after a certain time."""

    def forward(self, t, y):
        k = super().forward(t, y)
        return k if t < 0.65 else k * float("nan")


@pytest.mark.parametrize("grid", ["adaptive", "fixed"])
class TestASolveThatFailed:
    """Its outputs up to the failure are recomputed from its recorded steps, and equal those of the solve."""

    GRIDS = {  # noqa: RUF012
        "adaptive": {**LOOSE, "options": {"min_step": 1e-3}},
        "fixed": {"method": "rk4", "options": {"step_size": 0.1}},
    }

    def solved(self, func, grid, gradient, on_failure="return"):
        return solve(func, gradient=gradient, seed=3, on_failure=on_failure, **self.GRIDS[grid])

    @every_gradient
    def test_has_the_outputs_of_its_noise(self, grid, gradient):
        healthy = self.solved(Field(nn.Dropout(0.4)), grid, gradient)
        ys = self.solved(Breaking(nn.Dropout(0.4)), grid, gradient)
        assert torch.equal(ys[:2], healthy[:2]) and torch.isnan(ys[2]).all()

    @every_gradient
    def test_has_the_gradient_of_its_noise(self, grid, gradient):
        def solution(gradient, cls):
            func = cls(nn.Dropout(0.4))
            return self.solved(func, grid, gradient)[:2], func

        got, expected = gradients(*solution(gradient, Breaking)), gradients(*solution("backprop", Field))
        bound = ROUNDING if gradient in EXACT else APPROXIMATE
        assert max(relative_error(a, b) for a, b in zip(got, expected, strict=True)) < bound

    @every_gradient
    def test_advances_the_generator_by_one_call(self, grid, gradient):
        func = Breaking(nn.Dropout(0.4))
        self.solved(func, grid, gradient)
        after = torch.get_rng_state()
        torch.manual_seed(3)
        func(T[0], start())
        assert torch.equal(torch.get_rng_state(), after)

    @every_gradient
    def test_updates_statistics_once(self, grid, gradient):
        raised, returned = (Breaking(nn.BatchNorm1d(3).double()) for _ in range(2))
        with pytest.raises(sa.NonFiniteError):
            self.solved(raised, grid, gradient, on_failure="raise")
        self.solved(returned, grid, gradient)
        for a, b in zip(returned.buffers(), raised.buffers(), strict=True):
            assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())

    @every_gradient
    def test_names_the_component_that_its_noise_chose(self, grid, gradient):
        drawn = []

        def func(t, y):
            drawn.append(int(torch.randint(12, ())))
            k = -y.flatten()
            k[drawn[-1]] *= 1.0 if t < 0.65 else float("nan")
            return k.reshape(4, 3)

        with pytest.raises(sa.NonFiniteError) as caught:
            self.solved(func, grid, gradient, on_failure="raise")
        assert caught.value.component == (drawn[0] // 3, drawn[0] % 3)
        assert len(drawn) > 10 and set(drawn) == {drawn[0]}


class TestAutocast:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 3)

        def forward(self, t, y):
            return self.outer(torch.tanh(self.inner(y))).float()

    def solution(self, gradient, *, cache=True):
        func, y0 = self.Net(), start().float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
            ys = sa.odeint(func, y0, T, method="rk4", options={"step_size": 0.25}, gradient=gradient)
        return ys, func, y0

    @recomputing_gradients
    @pytest.mark.parametrize("within", [False, True], ids=["backward-outside", "backward-inside"])
    def test_of_the_forward_pass_is_used_in_the_backward_pass(self, within, gradient):
        ys, func, y0 = self.solution(gradient)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=within):
            got = gradients(ys, func, y0)
        # The cache hands one cast weight to all calls of a graph, whose gradients are summed in bfloat16 then.
        expected = gradients(*self.solution("backprop", cache=False))
        # The same rounded operations, summed in float32; other casts would make a difference of thousandths.
        bound = 1e-5 if gradient in EXACT else APPROXIMATE
        errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
        assert max(errors) < bound, errors

    @every_gradient
    def test_off_in_the_forward_pass_is_off_in_the_backward_pass(self, gradient):
        func, seen = nn.Linear(3, 3), set()

        def spy(t, y):
            seen.add(func(y).dtype)
            return func(y)

        ys = sa.odeint(spy, torch.ones(2, 3), T, method="rk4", gradient=gradient, params=(*func.parameters(),))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ys.square().sum().backward()
        assert seen == {torch.float32}

    @recomputing_gradients
    def test_is_the_same_in_a_second_backward_pass(self, gradient):
        ys, func, y0 = self.solution(gradient)
        loss = weighted_loss(ys)
        first, second = (torch.autograd.grad(loss, [y0, *func.parameters()], retain_graph=True) for _ in range(2))
        # The last step's stages, which the first backward pass still had, are recomputed in the same way.
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
