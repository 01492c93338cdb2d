"""torch.compile around a training step that calls odeint, around the field, and by odeint itself."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from tests.clients.gradients import gradients_of
from tests.oracle import relative_error

# dynamo reads .grad of everything that the compiled code takes.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
T = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
ROUNDING = 1e-12  # as in test_exactness: the generated code rounds in another order


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.nfe = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)), 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.field, self.head = nn.Linear(2, 3), Field(), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(torch.tanh(sa.odeint(self.field, self.encoder(x), T)[-1]))


def gradients(wrap):
    torch.manual_seed(0)
    model = Model()
    wrap(model)(torch.ones(4, 2)).square().sum().backward()
    return gradients_of(model), model.field.nfe


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_the_library_is_opaque_to_dynamo():
    """The code around the solve is compiled, the solve takes the same steps as without."""
    frames = []

    def backend(graph, example_inputs):
        frames.append(graph)
        return graph.forward

    expected, calls = gradients(lambda model: model)
    got, compiled_calls = gradients(lambda model: torch.compile(model, backend=backend))
    assert compiled_calls == calls
    assert max(relative_error(got[name], expected[name]) for name in expected) < ROUNDING
    assert len(frames) <= 3  # before the solve, after it, and no more than the field in between


def test_a_compiled_field_in_an_eager_solve():
    def compiled_field(model):
        model.field.net = torch.compile(model.field.net, backend="eager")
        return model

    expected, _ = gradients(lambda model: model)
    got, _ = gradients(compiled_field)
    assert max(relative_error(a, b) for a, b in zip(got.values(), expected.values(), strict=True)) < ROUNDING


def test_meta_tensors_are_refused_in_one_sentence():
    field = Field().to("meta")
    with pytest.raises((TypeError, ValueError), match="meta"):
        sa.odeint(field, torch.ones(3, device="meta"), T)


def test_a_default_device_of_another_kind():
    """torch.device("meta") as a context builds a model without memory: the solver's own tensors are not affected."""
    field, y0 = Field(), torch.ones(3)
    expected = sa.odeint(field, y0, T, method="rk4")
    with torch.device("meta"):
        assert torch.equal(sa.odeint(field, y0, T, method="rk4"), expected)


def test_an_initial_state_made_in_inference_mode():
    """Such a tensor cannot be saved for a backward pass, which needs its values only."""
    with torch.inference_mode():
        y0 = torch.ones(3)

    def gradients(start):
        field = Field()
        sa.odeint(field, start, T)[-1].sum().backward()
        return [p.grad for p in field.parameters()]

    assert all(torch.equal(got, x) for got, x in zip(gradients(y0), gradients(torch.ones(3)), strict=True))
