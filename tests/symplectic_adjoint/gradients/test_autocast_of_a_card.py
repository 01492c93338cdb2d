"""The library's own operations under the autocast of a card, which casts products of matrices and vectors too."""

import pytest
import torch
from torch import nn

import symplectic_adjoint as sa
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS
from tests.gradients import OWN_STEPS, STANDARD
from tests.pretend_autocast import autocast_of_a_card

T = torch.tensor([0.0, 0.25, 0.3, 1.0])
TOLERANCES = {"rtol": 1e-3, "atol": 1e-4}
FIXED = {"step_size": 0.125}
LOWER = {torch.float32: torch.bfloat16, torch.bfloat16: torch.bfloat16, torch.float16: torch.float16}
"""The dtype of autocast for each of y."""
CAPTURES = [name for name, gradient in sa.GRADIENTS.items() if gradient.captures]
IMPLICIT = [name for name, method in sa.METHODS.items() if method.implicit and not method.parts]
IMEX = [name for name, method in sa.METHODS.items() if method.parts]


class Neighbours(nn.Module):
    """Coupled entries, by operations that no autocast casts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = (nn.Parameter(torch.randn(2, 3)) for _ in range(2))

    def forward(self, t, y):
        return torch.tanh(self.a * y.roll(1, -1)) * torch.cos(t) - torch.sin(self.b) * y


def solved(func, y0, t, **keywords):
    solution = sa.solve(func, y0, t, **{**TOLERANCES, **keywords})
    return solution.ys, (solution.grid.t, solution.grid.h)


def stepped(func, y0, t, method="rk4", **keywords):
    return solved(func, y0, t, method=method, options=FIXED, **keywords)


def split(func, y0, t, **keywords):
    return stepped((func, lambda t, y: -5.0 * y), y0, t, params=tuple(func.parameters()), **keywords)


def with_many_outputs(func, y0, t, **keywords):
    return solved(func, y0, torch.linspace(0, 1, 90) * t[-1], options={"outputs": "interpolate"}, **keywords)


def event(func, y0, t, **keywords):
    t, ys = sa.odeint(func, y0, t[[0, -1]], event_fn=lambda t, y: y.flatten()[0] + t - 1.0, **TOLERANCES, **keywords)
    return torch.cat([ys.flatten(), t.to(ys)[None]]), ()


def dense(func, y0, t, **keywords):
    solution = sa.odeint_dense(func, y0, t[0], t[-1], **TOLERANCES, **keywords)
    return torch.cat([solution(t), solution(t / 2)]), ()


def adjoint(func, y0, t, **keywords):
    return sa.odeint_adjoint(func, y0, t, gradient="continuous", **TOLERANCES, **keywords), ()


def in_parts(func, y0, t, **keywords):
    return solved(lambda t, y: (func(t, y[0]), -y[1]), (y0, y0 * 2), t, params=func, **keywords)[0][0], ()


def jumping(func, y0, t, **keywords):
    return solved(func, y0, t, options={"jump_t": torch.tensor([0.4])}, **keywords)


def twice(func, y0, t, **keywords):
    ys = solved(func, y0, t, **keywords)[0]
    return torch.stack(torch.autograd.grad(ys, [y0, func.a], torch.ones_like(ys), create_graph=True)), ()


EXPLICIT = {
    **{f"adaptive-{name}": (solved, {"gradient": name}) for name in STANDARD},
    **{f"stepped-{name}": (stepped, {"gradient": name}) for name in STANDARD},
    **{f"stepped-{name}": (stepped, {"gradient": name, "method": None}) for name in OWN_STEPS},
    **{f"dense-{name}": (dense, {"gradient": name}) for name in STANDARD},
    **{f"outputs-{name}": (with_many_outputs, {"gradient": name}) for name in STANDARD},
    **{f"event-{name}": (event, {"gradient": name}) for name in STANDARD},
    **{name: (solved if sa.METHODS[name].adaptive else stepped, {"method": name}) for name in EXPLICIT_METHODS},
    **{f"captured-{name}": (solved, {"gradient": name, "capture": True}) for name in CAPTURES},
    **{f"captured-steps-{name}": (stepped, {"gradient": name, "capture": True}) for name in CAPTURES},
    **{f"captured-outputs-{name}": (with_many_outputs, {"gradient": name, "capture": True}) for name in CAPTURES},
    "float64": (solved, {"accumulate": "float64"}),
    "compensated": (solved, {"accumulate": "compensated"}),
    "offload": (solved, {"gradient": sa.Symplectic(offload="cpu")}),
    "graphs": (solved, {"gradient": sa.Symplectic(graphs=3)}),
    "adjoint": (adjoint, {}),
    "seminorm": (adjoint, {"adjoint_options": {"norm": "seminorm"}}),
    "parts": (in_parts, {}),
    "jump": (jumping, {}),
    "twice": (twice, {}),
}
FEW_OUTPUTS = {name: case for name, case in EXPLICIT.items() if not name.startswith(("outputs", "dense"))}
WITH_STAGES_TO_SOLVE = {
    **{name: (stepped, {"method": name}) for name in IMPLICIT},
    **{name: (split, {"method": name}) for name in IMEX},
    **{
        f"{linear}-{gradient}": (solved, {"method": "kvaerno3", "options": {"linear": linear}, "gradient": gradient})
        for linear in ("dense", "batched", "gmres")
        for gradient in STANDARD
    },
}


def results(case, forward, backward, *, dtype=torch.float32):
    """Return all results of a solve, with autocast on in its forward pass or in its backward pass, or not."""
    solve, keywords = case
    func, y0 = Neighbours().to(dtype), torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    y0, t = y0.requires_grad_(), T.clone().requires_grad_(dtype == torch.float32)
    with torch.autocast("cpu", dtype=LOWER[dtype], enabled=forward):
        ys, others = solve(func, y0, t, **keywords)
    inputs = [x for x in (y0, t, *func.parameters()) if x.requires_grad]
    weights = torch.linspace(0.5, 1.5, ys.numel()).to(dtype).view(ys.shape)
    with torch.autocast("cpu", dtype=LOWER[dtype], enabled=backward):
        bars = torch.autograd.grad(ys, inputs, weights, allow_unused=True)
    return [ys.detach(), *others, *bars]


@pytest.fixture(scope="module")
def a_card():
    with autocast_of_a_card() as casts:
        yield casts


@pytest.fixture
def casts(a_card):
    a_card.clear()
    return a_card


def require_none(casts, case, *where, **keywords):
    found = results(case, *where, **keywords)
    assert casts == []
    for a, b in zip(found, results(case, False, False, **keywords), strict=True):
        assert a is b is None or torch.equal(a, b)


@pytest.mark.parametrize("where", [(True, True), (False, True)], ids=["both", "backward"])
@pytest.mark.parametrize("case", EXPLICIT.values(), ids=EXPLICIT)
def test_nothing_of_a_solve_is_cast(casts, case, where):
    require_none(casts, case, *where)


@pytest.mark.parametrize("case", WITH_STAGES_TO_SOLVE.values(), ids=WITH_STAGES_TO_SOLVE)
def test_nothing_of_the_backward_pass_of_an_implicit_method_is_cast(casts, case):
    require_none(casts, case, False, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", FEW_OUTPUTS.values(), ids=FEW_OUTPUTS)
def test_nothing_is_widened_where_the_state_is_in_half_precision(casts, case, dtype):
    require_none(casts, case, True, True, dtype=dtype)
