"""compile=True: the same gradient and counts, compiled once, and a clear error where func cannot be compiled."""

import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.field import compiled
from tests.fields import SmallNet, start, weighted_loss
from tests.oracle import relative_error

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ADAPTIVE = {"rtol": 1e-6, "atol": 1e-8}
FIXED = {"method": "rk4", "options": {"step_size": 0.125}}
EQUAL = {"rtol": 1e-12, "atol": 1e-13}  # the same operations, fused and so rounded in another order, in float64


@pytest.fixture(scope="module", autouse=True)
def code_of_this_file_only():
    """Compiled code is kept for the tests of this file, which share it, and not for others."""
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def net():
    return SmallNet()


def gradients(func, *, times=False, **keywords):
    """Return the gradients of y0, the parameters and, if asked for, t; and the counts."""
    y0, t = start().requires_grad_(), T.clone().requires_grad_(times)
    solution = sa.solve(func, y0, t, **keywords)
    inputs = (y0, *func.parameters(), *((t,) if times else ()))
    return torch.autograd.grad(weighted_loss(solution.ys), inputs, allow_unused=True), solution.stats


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EQUAL)


@pytest.mark.parametrize("times", [False, True], ids=["", "times"])
@pytest.mark.parametrize("keywords", [ADAPTIVE, FIXED], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", sa.Revolve(2)])
def test_it_is_the_same_gradient_for_the_same_calls(gradient, keywords, times, net):
    plain, counts = gradients(net, gradient=gradient, times=times, **keywords)
    code, counts_of_code = gradients(net, gradient=gradient, times=times, compile=True, **keywords)
    assert_same(code, plain)
    assert counts_of_code == counts


def test_other_steps_parameters_and_values_do_not_recompile(net, monkeypatch):
    gradients(net, compile=True, **ADAPTIVE)
    compilations = []
    whole = torch._inductor.compile
    monkeypatch.setattr(torch._inductor, "compile", lambda *a, **k: compilations.append(1) or whole(*a, **k))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
    for rtol in (1e-3, 1e-5, 1e-7):
        code, _ = gradients(net, rtol=rtol, atol=1e-9, compile=True)
        assert_same(code, gradients(net, rtol=rtol, atol=1e-9)[0])
    assert not compilations


def test_a_solve_without_a_gradient_is_compiled_too(net):
    with torch.no_grad():
        ys = sa.odeint(net, start(), T, compile=True, **ADAPTIVE)
        torch.testing.assert_close(ys, sa.odeint(net, start(), T, **ADAPTIVE), **EQUAL)


def test_parameters_are_back_in_place_and_compiled_code_is_freed_with_its_module():
    class Decay(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, t, y):
            return -self.scale * y

    func = Decay()
    before = func.scale
    gradients(func, compile=True, method="euler", options={"step_size": 0.5})
    assert func.scale is before and before.grad is None
    gone = weakref.ref(func)
    del func, before
    torch._dynamo.reset()  # torch.compile's own caches are not the library's
    gc.collect()
    assert gone() is None


class Noisy(SmallNet):
    def forward(self, t, y):
        return nn.functional.dropout(super().forward(t, y), 0.5)


class Averaging(SmallNet):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, t, y):
        return super().forward(t, self.norm(y))


class Branching(SmallNet):
    def forward(self, t, y):
        return super().forward(t, y) if y.sum() > 0 else -y


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (Noisy(), "draws random numbers"),
        (Averaging(), "changes buffers"),
        (Branching(), "cannot be compiled as a whole"),
    ],
    ids=["noise", "buffers", "a branch"],
)
def test_functions_that_compiled_code_would_change_are_refused(func, message):
    with pytest.raises(sa.UnsupportedCombination, match=f"compile=True.*{message}"):
        sa.odeint(func, start(), T, compile=True, **ADAPTIVE)


class Transposed(nn.Module):
    """Its parameter is a view of another layout."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=torch.float64, generator=generator).t())

    def forward(self, t, y):
        return -y @ self.weight


def test_a_parameter_in_another_layout_gets_its_gradient():
    func = Transposed()
    assert not func.weight.is_contiguous()
    code, _ = gradients(func, compile=True, **FIXED)
    assert_same(code, gradients(func, **FIXED)[0])


class Listed(nn.Module):
    """Reaches its parameter by another way than as an attribute."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.all = [self.rate]

    def forward(self, t, y):
        return -self.all[0] * y


def test_a_parameter_that_is_not_in_its_module_is_refused_and_never_lost():
    y0 = start().requires_grad_()
    ys = sa.odeint(Listed(), y0, T, compile=True, method="euler", options={"step_size": 0.5})
    with pytest.raises(sa.UnsupportedCombination, match="but not as a parameter of its module"):
        weighted_loss(ys).backward()


def test_a_tensor_of_a_closure_gets_its_gradient():
    hidden = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def gradient(**keywords):
        ys = sa.odeint(lambda t, y: -hidden * y, start(), T, **keywords, **ADAPTIVE)
        return torch.autograd.grad(ys[-1].square().sum(), hidden)[0]

    assert relative_error(gradient(compile=True), gradient()) < 1e-12  # the compiler may fuse and reorder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": "aca"}, "'aca'"),
        ({"gradient": "backprop"}, "'backprop'"),
        ({"gradient": "continuous"}, "'continuous'"),
        ({"accumulate": "float64"}, "accumulate='float64'"),
        ({"y0": (start(), start())}, "structured"),
        ({"y0": start().half()}, "half precision"),
        ({"y0": start().to(torch.complex128)}, "complex"),
    ],
)
def test_unsupported_combinations_are_refused_before_func_is_called(change, message):
    def never(t, y):
        raise AssertionError("func was called")

    arguments = {"y0": start(), **change}
    with pytest.raises(sa.UnsupportedCombination, match=f"compile=True.*{message}"):
        sa.odeint(never, arguments.pop("y0"), T, compile=True, rtol=1e-3, atol=1e-3, **arguments)


def test_autocast_is_refused(net):
    with pytest.raises(sa.UnsupportedCombination, match="autocast"), torch.autocast("cpu", torch.bfloat16):
        sa.odeint(net, start(), T, compile=True, **ADAPTIVE)


def test_a_missing_compiler_is_named_before_func_is_called(monkeypatch):
    def none_found():
        raise RuntimeError("no working compiler in (None, 'g++')")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none_found)
    compiled.require_compiler.cache_clear()
    try:
        with pytest.raises(sa.CompilerNotFound, match=r"C\+\+ compiler.*g\+\+.*CXX"):
            sa.odeint(SmallNet(), start(), T, compile=True)
    finally:
        compiled.require_compiler.cache_clear()


def test_compile_is_true_or_false():
    with pytest.raises(TypeError, match="True or False, got 'yes'"):
        sa.odeint(SmallNet(), start(), T, compile="yes")


@dataclass
class Decay:
    rate: float

    def __call__(self, t, y):
        return -self.rate * y


def test_an_object_that_compares_by_value_is_compiled_too():
    ys = sa.odeint(Decay(0.5), start(), T, compile=True, **FIXED)
    torch.testing.assert_close(ys, sa.odeint(Decay(0.5), start(), T, **FIXED), **EQUAL)


def test_a_number_that_changes_in_every_solve_is_refused():
    limit = torch._dynamo.config.patch(recompile_limit=2)  # monkeypatch would leave the setting hidden
    with limit, pytest.raises(sa.UnsupportedCombination, match=r"differs in every solve.*buffer"):
        for n in range(4):
            sa.odeint(Decay(1.0 + n), start(), T, compile=True, **FIXED)


def test_an_older_torch_is_named_before_anything_is_traced(monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.11.0+cu130"))
    with pytest.raises(sa.UnsupportedCombination, match=r"compile=True needs PyTorch 2\.13 or later, got 2\.11\.0"):
        compiled.require_compiler.__wrapped__()
