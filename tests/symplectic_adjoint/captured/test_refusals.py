"""What no captured program can repeat is an error that names it and leaves everything usable."""

import pytest
import torch
from torch import nn

from symplectic_adjoint import Symplectic, UnsupportedCombination, odeint, solve
from symplectic_adjoint.errors import NotCapturable
from symplectic_adjoint.solve import capture as capture_module

T = torch.tensor([0.0, 1.0])
FIXED = {"method": "rk4", "options": {"step_size": 0.25}}
LIN = nn.Linear(3, 3)


def item(t, y):
    return LIN(y) * (1 if t.item() > 0.5 else 2)


def branch(t, y):
    return LIN(y) if y.sum() > 0 else -LIN(y)


def as_list(t, y):
    return LIN(y) * y.tolist()[0][0]


def as_array(t, y):
    return LIN(y) + float(y.detach().numpy().sum())


def equal(t, y):
    return LIN(y) if torch.equal(y, y) else y


def masked(t, y):
    return LIN(y) + y[y > 0].sum()


def solved(t, y):
    return y @ torch.linalg.inv(LIN.weight.detach() + 3 * torch.eye(3))


class TwoReads(nn.Module):
    """Reads in the backward pass only."""

    def forward(self, t, y):
        return _ReadsBackward.apply(LIN(y))


class _ReadsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float(grad.abs().sum() >= 0)


@pytest.mark.parametrize(
    ("func", "what"),
    [
        (item, "_local_scalar_dense"),
        (branch, "_local_scalar_dense"),
        (as_list, "tolist"),
        (as_array, "numpy"),
        (equal, "equal"),
        (masked, "index.Tensor"),
        (solved, "_linalg_check_errors"),
        (TwoReads(), "_local_scalar_dense"),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__) if callable(x) else None,
)
def test_a_read_on_the_host_names_the_operation_and_the_line(graphs, func, what):
    y = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(NotCapturable, match=what) as info:
        odeint(func, y, T, capture=True, **FIXED)[-1].sum().backward()
    assert "test_refusals.py:" in str(info.value)
    odeint(func, y, T, **FIXED)[-1].sum().backward()  # nothing is left behind
    assert y.grad is not None


def test_assigning_a_number_to_a_mask_is_captured(graphs):
    def func(t, y):
        z = LIN(y)
        z = z.clone()
        z[z > 0] = 0.0
        return z

    y = torch.ones(2, 3, requires_grad=True)
    got, expected = (
        torch.autograd.grad(odeint(func, y, T, capture=capture, **FIXED)[-1].sum(), y)[0] for capture in (True, False)
    )
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("layer", "message"), [(lambda: nn.Dropout(0.5), "draws random"), (lambda: nn.BatchNorm1d(3), "changes buffers")]
)
def test_random_numbers_and_changing_buffers(graphs, layer, message):
    net = nn.Sequential(nn.Linear(3, 3), layer())
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(NotCapturable, match=message):
        odeint(lambda t, y: net(y), torch.ones(4, 3), T, capture=True, **FIXED)
    assert torch.rand(3).shape == (3,)
    assert set(before) == set(net.state_dict())
    net.eval()
    odeint(lambda t, y: net(y), torch.ones(4, 3), T, capture=True, **FIXED)


def test_an_attribute_that_each_call_sets(graphs):
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.last = nn.Linear(3, 3), None

        def forward(self, t, y):
            self.last = self.lin(y)
            return self.last

    with pytest.raises(NotCapturable, match=r"sets func\.last"):
        odeint(Remembers(), torch.ones(4, 3), T, capture=True, **FIXED)


def test_a_list_that_each_call_extends(graphs):
    seen = []

    def func(t, y):
        seen.append(t)
        return LIN(y)

    with pytest.raises(NotCapturable, match="seen"):
        odeint(func, torch.ones(4, 3), T, capture=True, **FIXED)


def test_a_tensor_with_a_history_that_nothing_can_replace(graphs):
    held = [LIN.weight * 2]
    with pytest.raises(NotCapturable, match="computed outside"):
        odeint(lambda t, y: y @ held[0], torch.ones(4, 3), T, capture=True, **FIXED)
    scaled = LIN.weight * 2  # in a variable it can be replaced
    y = torch.ones(4, 3, requires_grad=True)
    got, expected = (
        torch.autograd.grad(
            odeint(lambda t, y: y @ scaled, y, T, capture=capture, **FIXED)[-1].sum(),
            [y, LIN.weight],
            retain_graph=True,
        )
        for capture in (True, False)
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_an_error_of_func_while_it_is_recorded(graphs):
    failures = iter([False, False, True])

    def func(t, y):
        if next(failures, False):
            raise ZeroDivisionError("in func")
        return LIN(y)

    with pytest.raises(ZeroDivisionError, match="in func"):
        odeint(func, torch.ones(4, 3), T, capture=True, **FIXED)
    odeint(func, torch.ones(4, 3), T, capture=True, **FIXED)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler reads it
def test_a_module_that_captures_graphs_itself(graphs):
    net = torch.compile(nn.Linear(3, 3), mode="reduce-overhead", backend="eager")
    plain = torch.compile(nn.Linear(3, 3), backend="eager")
    net.dynamo_ctx.compiler_config = {"triton.cudagraphs": True}
    with pytest.raises(NotCapturable, match="reduce-overhead"):
        odeint(lambda t, y: net(y), torch.ones(4, 3), T, capture=True, **FIXED)
    odeint(lambda t, y: plain(y), torch.ones(4, 3), T, capture=True, **FIXED)


@pytest.mark.parametrize("capture", ["yes", None, 1.0])
def test_capture_is_one_of_its_values(capture):
    with pytest.raises(TypeError, match="capture must be True, False or 'auto'"):
        odeint(LIN, torch.ones(4, 3), T, capture=capture)


@pytest.mark.parametrize("gradient", ["backprop", "aca", "baseline", "continuous", "mali", "reversible"])
def test_gradients_that_cannot_be_captured(gradient):
    with pytest.raises(UnsupportedCombination, match="capture=True does not work with gradient="):
        odeint(LIN, torch.ones(4, 3), T, capture=True, gradient=gradient)


def test_held_graphs_and_transforms_are_refused():
    with pytest.raises(UnsupportedCombination, match="held graphs"):
        odeint(LIN, torch.ones(4, 3), T, capture=True, gradient=Symplectic(graphs=3))
    with pytest.raises(UnsupportedCombination, match=r"torch\.func"):
        torch.func.vmap(lambda y: odeint(lambda t, y: -y, y, T, capture=True, **FIXED))(torch.ones(4, 3))


def test_auto_never_captures_on_the_cpu():
    solution = solve(lambda t, y: LIN(y), torch.ones(4, 3), T, capture="auto")
    assert solution.stats.capture is None


class TestAuto:
    """With "auto" a refusal is remembered; the check of the device is replaced."""

    @pytest.fixture(autouse=True)
    def _on_a_card(self, monkeypatch):
        monkeypatch.setattr("symplectic_adjoint.arguments.may_capture_on", lambda y: True)
        monkeypatch.setattr(capture_module, "_REFUSED", type(capture_module._REFUSED)())

    def test_what_can_be_captured_is(self, graphs):
        solution = solve(lambda t, y: LIN(y), torch.ones(4, 3), T, capture="auto", **FIXED)
        assert solution.stats.capture.replayed > 0
        assert solution.stats.capture.fallback is None

    def test_a_refusal_in_the_forward_pass_is_tried_once(self, graphs):
        y = torch.ones(4, 3, requires_grad=True)
        for _ in range(2):
            solution = solve(item, y, T, capture="auto", **FIXED)
            assert "_local_scalar_dense" in solution.stats.capture.fallback
            assert solution.stats.capture.replayed == 0
        expected = torch.autograd.grad(odeint(item, y, T, **FIXED)[-1].sum(), y)[0]
        assert torch.equal(torch.autograd.grad(solution.ys[-1].sum(), y)[0], expected)

    def test_a_refusal_in_the_backward_pass_falls_back(self, graphs):
        func, y = TwoReads(), torch.ones(4, 3, requires_grad=True)
        solution = solve(func, y, T, capture="auto", **FIXED)
        got = torch.autograd.grad(solution.ys[-1].sum(), y)[0]
        assert "_local_scalar_dense" in solution.stats.capture.fallback
        torch.testing.assert_close(got, torch.autograd.grad(odeint(func, y, T, **FIXED)[-1].sum(), y)[0])
        assert solve(func, y, T, capture="auto", **FIXED).stats.capture.replayed == 0

    def test_other_modes_are_tried_anew(self, graphs):
        net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        func, y = (lambda t, y: net(y)), torch.ones(4, 3)
        assert "random" in solve(func, y, T, capture="auto", **FIXED).stats.capture.fallback
        net.eval()
        assert solve(func, y, T, capture="auto", **FIXED).stats.capture.fallback is None
