"""Each gradient's facts about itself are true: its cost, its memory formula, and the arguments that it accepts."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from symplectic_adjoint import GRADIENTS, METHODS, IgnoredArgumentWarning, UnsupportedCombination, odeint, solve
from symplectic_adjoint.backward.cost import CallCost
from symplectic_adjoint.backward.memory_model import MemoryModel
from tests.fields import Counted, SmallNet, start

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
README = Path(__file__).parents[3] / "README.md"

every_gradient = pytest.mark.parametrize("gradient", GRADIENTS)


def model_of(method, y0):
    """Return a memory model whose bytes mean nothing, for predictions of f calls."""
    state_bytes = y0.numel() * y0.element_size()
    cost = CallCost(state_bytes, 8, 10 * state_bytes, *(10 * state_bytes,) * 5, call_s=1.0, vjp_s=1.0)
    return MemoryModel(cost, METHODS[method].stages, outputs=2, adaptive=False)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])  # 40 steps are more than revolve keeps by default
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@every_gradient
def test_predicted_f_calls_are_those_of_a_solve(gradient, method, steps):
    func, y0 = Counted(SmallNet()), start().requires_grad_()
    predicted = GRADIENTS[gradient].predicted(model_of(method, y0), steps)
    if predicted is None:
        assert gradient in ("mali", "continuous")
        return
    solution = solve(func, y0, T, method=method, options={"step_size": 1.0 / steps}, gradient=gradient)
    forward = func.calls
    solution.ys.sum().backward()
    stats = solution.stats
    assert stats.accepted == steps
    assert forward == stats.f_calls_forward == predicted.f_calls_forward
    assert func.calls - forward == stats.f_calls_backward == predicted.f_calls_backward
    assert stats.vjps_backward == predicted.vjps_backward


def memory_column():
    """Return the memory column of README's table of gradients, by gradient."""
    section = README.read_text(encoding="utf-8").partition("## Which gradient\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    column = rows[0].index("memory")
    return {name[1]: row[column] for row in rows[2:] if (name := re.match(r"\W*`(\w+)`", row[0]))}


def normalized(formula):
    return " ".join(formula.replace("−", "-").replace("\u00a0", " ").split())


@every_gradient
def test_readme_has_the_memory_formula(gradient):
    assert normalized(memory_column()[gradient]) == normalized(GRADIENTS[gradient].memory_formula())


@dataclass(frozen=True)
class Fact:
    """A fact: whether a strategy has it, the arguments that need it, and the error for a gradient without it."""

    holds: object
    keywords: dict
    message: str


FACTS = {
    "accumulates": Fact(
        lambda strategy: strategy.accumulates,
        {"accumulate": "float64"},
        r"accumulate='float64' belongs to gradients that sum step by step, got gradient='{}'",
    ),
    "compiles": Fact(
        lambda strategy: strategy.compiles,
        {"compile": True},
        r"compile=True does not work with gradient='{}'",
    ),
    "no own_steps": Fact(
        lambda strategy: not strategy.own_steps,
        {"options": {"outputs": "interpolate"}},
        r"gradient='{}' takes its own steps, which have no dense output",
    ),
    "no own_tableau": Fact(
        lambda strategy: strategy.own_tableau is None,
        {"method": "dopri5"},
        r"only works with its own method '\w+', got method='dopri5'",
    ),
    "second_solve": Fact(
        lambda strategy: strategy.second_solve,
        {},
        r"callback_step_adjoint: no effect, because gradient='{}' has no second solve",
    ),
    "crosses_jumps": Fact(
        lambda strategy: strategy.crosses_jumps,
        {"options": {"jump_t": [0.5]}},
        r"option 'jump_t' does not work with gradient='{}'",
    ),
}


class WithCallback(nn.Module):
    """A field with a callback for the steps of a second solve."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.times = []

    def forward(self, t, y):
        return self.net(t, y)

    def callback_step_adjoint(self, t, y, dt):
        self.times.append(float(t))


@pytest.fixture(scope="module")
def net():
    """Yield a field that all gradients share, so that it is compiled once; drop its code afterwards."""
    yield SmallNet()
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FACTS)
@every_gradient
def test_a_fact_decides_whether_an_argument_is_accepted(gradient, name, net):
    fact = FACTS[name]
    if name == "compiles" and fact.holds(GRADIENTS[gradient]) and torch.__version__ < "2.13":
        pytest.skip("compile=True needs torch 2.13")
    func, y0, calls = WithCallback() if name == "second_solve" else net, start().requires_grad_(), []
    keywords = {"rtol": 1e-3, "atol": 1e-3, "gradient": gradient, **fact.keywords}
    if fact.holds(GRADIENTS[gradient]):
        odeint(func, y0, T, **keywords).sum().backward()
        assert y0.grad is not None and torch.isfinite(y0.grad).all()
        assert name != "second_solve" or func.times
    else:
        hook = func.register_forward_pre_hook(lambda *_: calls.append(1))
        with pytest.raises((UnsupportedCombination, IgnoredArgumentWarning), match=fact.message.format(gradient)):
            odeint(func, y0, T, **keywords)
        hook.remove()
        assert not calls


def test_every_fact_divides_the_gradients():
    for name, fact in FACTS.items():
        assert len({fact.holds(strategy) for strategy in GRADIENTS.values()}) == 2, name


@every_gradient
def test_all_but_the_continuous_and_the_reversing_ones_are_exact_for_the_methods_own_steps(gradient):
    assert GRADIENTS[gradient].exact_for_method == (gradient not in ("continuous", "mali", "reversible"))
