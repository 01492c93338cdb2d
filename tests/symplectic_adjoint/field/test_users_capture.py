"""A solve in a CUDA graph of the user's own: on a pretended card, nothing reads the host while a stream is captured."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint import arguments
from symplectic_adjoint.field import host_reads
from symplectic_adjoint.field.forward_rng import ForwardRng
from symplectic_adjoint.field.guarded_tensors import GuardedTensors
from symplectic_adjoint.field.reach_walk import reach_of
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from symplectic_adjoint.solve.step_control import rms_norm
from tests.fields import SmallNet, start
from tests.gradients import EXACT, taking_turns
from tests.pretend_card import DEVICE, PretendCard, on_card

T = torch.tensor([0.0, 0.35, 0.8, 1.0], dtype=torch.float64)
FIXED = {"step_size": 0.25}


@pytest.fixture
def card(monkeypatch):
    """Yield the card. Its stream is being captured as long as `capturing` is set."""
    monkeypatch.setattr(arguments, "require_values", lambda y0, t: None)  # the device of the card is torch's "meta"
    monkeypatch.setattr(host_reads, "CAPTURABLE", frozenset({DEVICE.type}))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: card.capturing)
    with PretendCard() as card:
        card.capturing = True
        yield card


class Times(SmallNet):
    """A field that is also a function of a part of the state: a tuple."""

    def forward(self, t, y):
        if isinstance(y, tuple):
            return super().forward(t, y[0]), -y[1] * torch.cos(t)
        return super().forward(t, y)


def gradient_of(net, y0, t, **keywords):
    """Return the outputs of a solve and its gradient in a list, on the host."""
    leaves = [y0] if isinstance(y0, torch.Tensor) else list(y0)
    if keywords.get("gradient") == "mali":
        keywords.pop("method", None)
    ys = sa.odeint(net, y0, t, **keywords)
    rows = [ys] if isinstance(ys, torch.Tensor) else list(ys)
    loss = sum((y.sin() + y).sum() for y in rows)
    wanted = [*leaves, *(p for p in net.parameters() if p.requires_grad)]
    return [*rows, *(x for x in torch.autograd.grad(loss, wanted, allow_unused=True) if x is not None)]


def same(card, net, y0, t, **keywords):
    """Assert that a capture reads nothing and has the numbers of a solve without a capture on the host."""
    expected = gradient_of(net, y0, t, **keywords)
    y0 = on_card(y0) if isinstance(y0, torch.Tensor) else tuple(map(on_card, y0))
    net = on_card(net)
    card.waits.clear()
    found = gradient_of(net, y0, t, **keywords)
    assert card.waits == []
    assert len(found) == len(expected) > 2
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.value, b)  # the operations are the same


@pytest.mark.parametrize(("gradient", "method"), taking_turns(EXPLICIT_METHODS, sa.GRADIENTS))
def test_a_captured_solve_reads_nothing(card, gradient, method):
    same(card, SmallNet(), start().requires_grad_(), T, gradient=gradient, method=method, options=FIXED)


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_nor_does_one_of_a_tuple(card, gradient):
    y0 = (start().requires_grad_(), start(2, 2).requires_grad_())
    same(card, Times(), y0, T, gradient=gradient, method="rk38", options=FIXED)


@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_nor_with_outputs_at_repeated_times(card, gradient):
    same(card, SmallNet(), start().requires_grad_(), T.repeat_interleave(2), gradient=gradient, options=FIXED)


@pytest.mark.parametrize("gradient", EXACT)
def test_nor_with_many_outputs_inside_a_step(card, gradient):
    same(card, SmallNet(), start().requires_grad_(), torch.linspace(0, 1, 9), gradient=gradient, options=FIXED)


@pytest.mark.parametrize(
    "options", [{"grid_points": [0.0, 0.5, 1.0]}, {**FIXED, "jump_t": [0.3]}, {**FIXED, "perturb": True}]
)
@pytest.mark.parametrize("gradient", ["symplectic", "backprop", "stages"])
def test_nor_on_other_grids(card, gradient, options):
    same(card, SmallNet(), start().requires_grad_(), T, gradient=gradient, method="rk4", options=options)


@pytest.mark.parametrize("accumulate", ["float64", "compensated"])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "revolve", "aca"])
def test_nor_with_precise_sums(card, gradient, accumulate):
    same(card, SmallNet(), start().requires_grad_(), T, gradient=gradient, options=FIXED, accumulate=accumulate)


class Half(SmallNet):
    """A field whose values have a lower precision, as under autocast."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, t, y):
        return super().forward(t, y).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gradient", sa.GRADIENTS)
def test_nor_in_half_precision(card, gradient, dtype):
    same(card, Half(dtype), start().requires_grad_(), T, gradient=gradient, options=FIXED, method="rk4")


@pytest.mark.parametrize("graphs", [3, float("inf")])
@pytest.mark.parametrize("keep", ["steps", "stages"])
def test_nor_with_held_graphs(card, graphs, keep):
    gradient = sa.Symplectic(keep=keep, graphs=graphs)
    same(card, SmallNet(), start().requires_grad_(), T, gradient=gradient, options=FIXED)


@pytest.mark.parametrize("gradient", EXACT)
def test_nor_does_a_second_derivative(card, gradient):
    def second(net, y0):
        ys = sa.odeint(net, y0, T, gradient=gradient, method="rk4", options=FIXED)
        (bar,) = torch.autograd.grad(ys.sin().sum(), y0, create_graph=True)
        return torch.autograd.grad(bar.square().sum(), [y0, net.inner.weight])

    expected = second(SmallNet(), start().requires_grad_())
    found = second(on_card(SmallNet()), on_card(start().requires_grad_()))
    assert card.waits == []
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.value, b)


@pytest.mark.parametrize("gradient", EXACT)
def test_nor_does_a_backward_pass_alone(card, gradient):
    card.capturing = False
    y0 = on_card(start().requires_grad_())
    ys = sa.odeint(on_card(SmallNet()), y0, T, gradient=gradient, method="rk4", options=FIXED)
    card.capturing = True
    card.waits.clear()
    ys.sum().backward()
    assert card.waits == [] and y0.grad is not None


def refused(card, match, *, y0=None, t=T, net=None, **keywords):
    """Assert that a capture is refused before func is called and anything is read."""
    net, calls = on_card(net or SmallNet()), []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    y0 = on_card(start().requires_grad_()) if y0 is None else y0
    card.waits.clear()
    with pytest.raises(sa.UnsupportedCombination, match=match):
        sa.odeint(net, y0, t, **({"options": FIXED} | keywords))
    assert card.waits == [] and not calls


def test_what_the_host_must_decide_is_refused_before_func_is_called(card):
    refused(card, "adaptive steps, whose sizes the host chooses: give step_size", options={})
    refused(card, "an implicit method, whose iterations the host ends", method="kvaerno3")
    refused(card, "event_fn, which the host", t=T[:2], event_fn=lambda t, y: y.sum())
    refused(card, "option 'stop', which the host", options={**FIXED, "stop": lambda t, y: False})


def test_what_would_be_copied_to_the_host_is_refused_before_func_is_called(card):
    refused(card, r"offload='cpu', whose host memory.*: leave it out", gradient=sa.Symplectic(offload="cpu"))
    refused(card, r"offload='disk', whose host memory", gradient=sa.Revolve(offload="disk"))
    refused(card, r"a t that requires a gradient.*: detach\(\) it", t=T.clone().requires_grad_())


def test_what_lies_on_the_card_and_must_be_read_is_refused_before_func_is_called(card):
    refused(card, r"t lies on meta.*: give it in host memory", t=on_card(T))
    refused(card, r"rtol lies on meta", rtol=on_card(torch.tensor(1e-3)))
    refused(card, r"atol\[1\] lies on meta", y0=(on_card(start()), on_card(start())), atol=(1e-3, on_card(start())))
    refused(card, r"option 'step_size' lies on meta", options={"step_size": on_card(torch.tensor(0.1))})
    refused(card, r"option 'grid_points' lies on meta", options={"grid_points": on_card(T)})
    refused(card, r"option 'jump_t' lies on meta", options={**FIXED, "jump_t": on_card(T[1])})


def test_auto_needs_a_budget_and_a_solve_before_the_capture(card):
    net, keywords = on_card(SmallNet(5)), {"options": FIXED, "gradient": "auto"}
    y0 = on_card(start(size=5).requires_grad_())
    with pytest.raises(sa.UnsupportedCombination, match=r"cannot read how much memory is free.*: give memory_budget"):
        sa.odeint(net, y0, T, **keywords)
    with pytest.raises(sa.UnsupportedCombination, match=r"measures one f call.*: solve once before the capture"):
        sa.odeint(net, y0, T, memory_budget="1 MiB", **keywords)
    assert card.waits == []


def test_a_second_solve_with_adaptive_steps_is_refused(card):
    y0 = on_card(start().requires_grad_())
    gradient = sa.Continuous(method="dopri5", options={"norm": rms_norm})
    with pytest.raises(sa.UnsupportedCombination, match="adaptive steps"):
        sa.odeint(on_card(SmallNet()), y0, T, gradient=gradient, options=FIXED).sum().backward()
    assert card.waits == []


class Draws(SmallNet):
    """A field that draws in some calls. where: the operation; after: the number of calls before the first draw."""

    def __init__(self, draw, after=0):
        super().__init__()
        self.draw, self.left = draw, after

    def forward(self, t, y):
        k = super().forward(t, y)
        self.left -= 1
        return self.draw(k) if self.left < 0 else k


def attention(dropout):
    return lambda k: nn.functional.scaled_dot_product_attention(k[None], k[None], k[None], dropout_p=dropout)[0]


DRAWS = {
    "dropout": lambda k: nn.functional.dropout(k, 0.5),
    "randn_like": lambda k: k + torch.randn_like(k),
    "bernoulli": lambda k: k * torch.bernoulli(torch.full_like(k, 0.5)),
    "rand on the host": lambda k: k + torch.rand(()),
    "rrelu": lambda k: nn.functional.rrelu(k, training=True),
    "attention": attention(0.5),
}
NO_DRAWS = {
    "dropout off": lambda k: nn.functional.dropout(k, 0.5, training=False),
    "dropout of nothing": lambda k: nn.functional.dropout(k, 0.0),
    "rrelu": lambda k: nn.functional.rrelu(k, training=False),
    "attention": attention(0.0),
}


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(("gradient", "draw"), taking_turns(DRAWS))
def test_a_func_that_draws_is_refused_and_draws_nothing(card, gradient, draw, after):
    """In its first call and in a later one. The generator is left as it was."""
    net, y0 = on_card(Draws(DRAWS[draw], after)), on_card(start())
    before = torch.get_rng_state()
    with pytest.raises(sa.UnsupportedCombination, match=r"func draws random numbers .*while a CUDA stream is captured"):
        sa.odeint(net, y0, T, gradient=gradient, options=FIXED)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("draw", NO_DRAWS)
def test_one_that_only_might_draw_is_not_refused(card, draw):
    same(card, Draws(NO_DRAWS[draw]), start().requires_grad_(), T, options=FIXED)


@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca", "baseline"])
def test_the_backward_pass_of_one_that_drew_before_the_capture_is_refused(card, gradient):
    card.capturing = False
    y0 = on_card(start().requires_grad_())
    ys = sa.odeint(on_card(Draws(DRAWS["dropout"])), y0, T, gradient=gradient, options=FIXED)
    card.capturing = True
    before = torch.get_rng_state()
    with pytest.raises(sa.UnsupportedCombination, match="func draws random numbers"):
        ys.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


READS = {
    "item": lambda k: k * (2.0 if k.sum().item() > 0 else 1.0),
    "bool": lambda k: k if (k > 0).all() else -k,
    "tolist": lambda k: k * k.flatten().tolist()[0],
    "to the host": lambda k: k + k.cpu().sum(),
    "mask": lambda k: k - k[k > 0].sum(),
    "nonzero": lambda k: k * len(k.nonzero()),
    "equal": lambda k: k if torch.equal(k, k) else -k,
    "from the host": lambda k: k + torch.ones(3, dtype=torch.float64).to(k.device),
    "into a tensor on the card": lambda k: k + torch.empty_like(k).copy_(torch.ones(4, 3)),
}


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(("gradient", "read"), taking_turns(READS))
def test_a_func_that_reads_is_refused_before_the_read(card, gradient, read, after):
    """torch would end the capture, and leave the process without random numbers."""
    net, y0 = on_card(Draws(READS[read], after)), on_card(start())
    card.waits.clear()
    with pytest.raises(sa.UnsupportedCombination, match=r"func makes the host read or write the card \(aten"):
        sa.odeint(net, y0, T, gradient=gradient, options=FIXED)
    assert card.waits == []


def test_one_that_indexes_and_copies_on_the_card_is_not_refused(card):
    def copies(k):
        return k[:, torch.arange(2, -1, -1, device=k.device)] + torch.empty_like(k).copy_(k).float().double()

    same(card, Draws(copies), start().requires_grad_(), T, options=FIXED)


def test_a_func_whose_operations_are_not_seen_is_refused_unless_a_solve_before_drew_nothing(card):
    """The wrapper of torch.compile, on torch's own operations."""
    net = torch.compile(on_card(SmallNet()), backend="eager")
    with pytest.raises(sa.UnsupportedCombination, match=r"func is compiled or scripted.*: solve once before it"):
        sa.odeint(net, on_card(start()), T, options=FIXED)
    t, y = torch.zeros(()), torch.ones(3)

    def call():
        return ForwardRng(DEVICE, reach_of(net).opaque_modules)(lambda t, y: 2 * y, t, y)

    card.capturing = False
    call()
    card.capturing = True
    assert call().sum() == 6
    net.eval()
    with pytest.raises(sa.UnsupportedCombination, match=r"in the same training mode"):
        call()


class Normed(SmallNet):
    """A field that updates buffers of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, t, y):
        return self.norm(super().forward(t, y))


def test_a_func_that_changes_buffers_is_refused_unless_nothing_is_recomputed(card):
    for gradient in ("symplectic", "stages", "aca"):
        with pytest.raises(sa.UnsupportedCombination, match=r"func changes buffers .*'running_mean'.*: call func.eval"):
            sa.odeint(on_card(Normed()), on_card(start()), T, gradient=gradient, options=FIXED)
    same(card, Normed(), start().requires_grad_(), T, gradient="backprop", options=FIXED)
    same(card, Normed().eval(), start().requires_grad_(), T, gradient="symplectic", options=FIXED)


def test_what_cannot_be_compared_has_changed_and_a_time_that_cannot_be_read_is_not_shown(monkeypatch):
    x, t = torch.ones(3), torch.tensor(0.25)
    guarded = GuardedTensors([x])
    x.data = torch.ones(3)
    guarded.require_unmoved(str)
    assert host_reads.shown(t) == "0.25"
    monkeypatch.setattr(host_reads, "CAPTURABLE", frozenset({"cpu"}))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(sa.FunctionChanged, match="was changed since the forward pass"):
        guarded.require_unmoved(str)
    assert host_reads.shown(t) == "(not to be read during a capture)"


def test_outside_of_a_capture_the_same_solves_work(card):
    card.capturing = False
    y0, net = on_card(start().requires_grad_()), on_card(SmallNet())
    for keywords in ({}, {"options": FIXED, "gradient": sa.Symplectic(offload="cpu")}):
        sa.odeint(net, y0, on_card(T), rtol=on_card(torch.tensor(1e-3)), **keywords).sum().backward()
    assert card.waits
