"""Tracing, export and tensors without values: one sentence before func is called."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import symplectic_adjoint as sa
from tests.fields import SmallNet, start

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
SOLVES = {
    "adaptive": lambda func, y0, t: sa.odeint(func, y0, t, rtol=1e-4, atol=1e-6),
    "fixed": lambda func, y0, t: sa.odeint(func, y0, t, method="rk4", options={"step_size": 0.25}),
    "backprop": lambda func, y0, t: sa.odeint(func, y0, t, gradient="backprop"),
    "adjoint": lambda func, y0, t: sa.odeint_adjoint(func, y0, t),
    "event": lambda func, y0, t: sa.odeint_event(func, y0, 0.0, event_fn=lambda t, y: t - 0.5)[1],
    "dense": lambda func, y0, t: sa.odeint_dense(func, y0, 0.0, 1.0)(0.5),
    "a tuple": lambda func, y0, t: sa.odeint(lambda t, y: (func(t, y[0]),), (y0,), t)[0],
    "layer": lambda func, y0, t: sa.NeuralODE(func)(y0, t),
}
each_solve = pytest.mark.parametrize("solve", SOLVES.values(), ids=SOLVES)


class Model(nn.Module):
    def __init__(self, solve):
        super().__init__()
        self.func, self.solve, self.calls = SmallNet(), solve, 0
        self.func.register_forward_pre_hook(lambda *_: setattr(self, "calls", self.calls + 1))

    def forward(self, y0, t):
        return self.solve(self.func, y0, t)


def fake(x):
    return FakeTensorMode().from_tensor(x)


def in_fake_mode(model, y0, t):
    with FakeTensorMode():
        model(y0, t)


def in_fake_mode_with_fake_tensors(model, y0, t):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(y0), mode.from_tensor(t))


RECORDERS = {
    "jit.trace": (lambda model, y0, t: torch.jit.trace(model, (y0, t)), "torch.jit.trace cannot record a solve"),
    "export": (lambda model, y0, t: torch.export.export(model, (y0, t)), "torch.export, make_fx and Fake"),
    "make_fx": (lambda model, y0, t: make_fx(model)(y0, t), "torch.export, make_fx and Fake"),
    "make_fx, fake": (lambda model, y0, t: make_fx(model, tracing_mode="fake")(y0, t), "torch.export, make_fx and F"),
    "fake mode": (in_fake_mode, "torch.export, make_fx and FakeTensorMode"),
    "fake mode and tensors": (in_fake_mode_with_fake_tensors, "torch.export, make_fx and FakeTensorMode"),
    "fake y0": (lambda model, y0, t: model(fake(y0), t), r"y0(\[0\])? is a fake tensor"),
    "fake t": (lambda model, y0, t: model(y0, fake(t)), "t is a fake tensor"),
    "meta y0": (lambda model, y0, t: model(y0.to("meta"), t), r"y0(\[0\])? is a meta tensor"),
    "meta t": (lambda model, y0, t: model(y0, t.to("meta")), "t is a meta tensor"),
    "meta": (lambda model, y0, t: model.to("meta")(y0.to("meta"), t), r"y0(\[0\])? is a meta tensor"),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("record", "message"), RECORDERS.values(), ids=RECORDERS)
@each_solve
def test_a_solve_cannot_be_recorded_and_needs_values(solve, record, message):
    model = Model(solve)
    if message.startswith("t is") and solve in (SOLVES["dense"], SOLVES["event"]):
        return  # their times are numbers
    with pytest.raises(sa.UnsupportedCombination, match=message) as raised:
        record(model, start(), T)
    assert "\n" not in str(raised.value) and model.calls == 0


def test_strict_export_gives_the_reason():
    with pytest.raises(torch._dynamo.exc.Unsupported, match="symplectic_adjoint solves outside of compiled graphs"):
        torch.export.export(Model(SOLVES["fixed"]), (start(), T), strict=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_traced_func_is_solved_like_the_module_that_it_was_traced_from():
    func, y0 = SmallNet(), start()
    traced = torch.jit.trace(func, (T[0], y0))
    assert torch.equal(sa.odeint(traced, y0, T), sa.odeint(func, y0, T))


def test_parameters_that_func_never_reads_need_no_values():
    class Functional(nn.Module):
        """Calls a skeleton without values with the tensors that it owns, as torch.func's ensembles do."""

        def __init__(self):
            super().__init__()
            self.own = nn.ParameterDict({k.replace(".", "_"): p for k, p in SmallNet().named_parameters()})
            self.skeleton = SmallNet().to("meta")

        def forward(self, t, y):
            named = {k: self.own[k.replace(".", "_")] for k, _ in self.skeleton.named_parameters()}
            return torch.func.functional_call(self.skeleton, named, (t, y))

    func = Functional()
    sa.odeint(func, start(), T).sum().backward()
    plain = SmallNet()
    sa.odeint(plain, start(), T).sum().backward()
    for k, p in plain.named_parameters():
        got = func.own[k.replace(".", "_")].grad
        assert got is p.grad is None or torch.equal(got, p.grad)
