"""How implicit stages are solved: what is chosen, counted and held."""

import pytest
import torch
from torch import nn

from symplectic_adjoint import METHODS, solve
from symplectic_adjoint.field.stage_solver import StageSolver
from symplectic_adjoint.methods.registry import IMPLICIT_METHODS
from tests.fields import Counted, SmallNet, start
from tests.gradients import EXACT, taking_turns
from tests.stiff_fields import Hires, Robertson, StiffLinear

T = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
EPS = torch.finfo(torch.float64).eps


class Linear(nn.Module):
    """dy/dt = A y, with rates of about -1, -30 and -200."""

    def __init__(self):
        super().__init__()
        self.A = StiffLinear().A

    def forward(self, t, y):
        return y @ self.A.T


class Normed(nn.Module):
    """Batch statistics between two layers: every sample depends on all the others."""

    def __init__(self):
        super().__init__()
        self.net = SmallNet()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64, track_running_stats=False)

    def forward(self, t, y):
        return 0.1 * self.norm(self.net(t, y)) - y


def fixed(func, y0, *, method="kvaerno3", steps=5, **keywords):
    options = {"step_size": 1.0 / steps, **keywords.pop("options", {})}
    return solve(func, y0, T, method=method, options=options, **keywords)


def implicit_stages(method):
    return sum(g != 0 for g in METHODS[method].diagonal)


@pytest.mark.parametrize(
    ("func", "y0", "expected"),
    [
        (SmallNet(), start(), "batched"),
        (SmallNet(), start(batch=1).expand(4, 3).clone(), "batched"),
        (SmallNet(), start(batch=1), "dense"),
        (SmallNet(), start()[0], "dense"),
        (Normed(), start(), "dense"),
        (lambda t, y: -y, torch.ones(2, 300, dtype=torch.float64), "gmres"),
        (lambda t, y: -y, torch.ones(600, dtype=torch.float64), "gmres"),
    ],
)
def test_auto_finds_whether_samples_interact(func, y0, expected):
    assert fixed(func, y0, method="implicit_euler").stats.stages.linear == expected


def test_samples_that_are_all_equal_are_told_apart_by_the_probe():
    func = Normed()
    y0 = torch.ones(4, 3, dtype=torch.float64)
    assert fixed(func, y0, method="implicit_euler", steps=1).stats.stages.linear == "dense"


@pytest.mark.parametrize("gradient", ["symplectic", "backprop"])
def test_batched_is_refused_if_samples_interact(gradient):
    func = Counted(Normed())
    with pytest.raises(ValueError, match=r"depends on another sample's y .* give linear='dense' or 'gmres'"):
        fixed(func, start().requires_grad_(), options={"linear": "batched"}, gradient=gradient)
    assert func.calls <= 2


@pytest.mark.parametrize("linear", ["dense", "batched"])
@pytest.mark.parametrize("method", [m for m in IMPLICIT_METHODS if not (METHODS[m].additive or METHODS[m].coupled)])
def test_a_linear_func_takes_one_jacobian_and_two_iterations_a_stage(method, linear):
    func = Linear()
    solution = fixed(func, start().requires_grad_(), method=method, steps=4, options={"linear": linear})
    work, stages = solution.stats.stages, 4 * implicit_stages(method)
    assert work.jacobians == 1 and work.factorizations <= len({g for g in METHODS[method].diagonal if g})
    assert stages <= work.iterations <= 2 * stages
    assert work.residual <= 16 * EPS
    solution.ys.sum().backward()
    backward = solution.stats.stages_backward
    assert backward.jacobians <= 1 and backward.products <= 2 * stages and backward.residual <= 16 * EPS


@pytest.mark.parametrize("gradient", EXACT)
def test_gmres_forms_no_jacobian(gradient):
    solution = fixed(SmallNet(), start().requires_grad_(), gradient=gradient, options={"linear": "gmres"})
    solution.ys.sum().backward()
    for work in (solution.stats.stages, solution.stats.stages_backward):
        assert work is None or (work.jacobians, work.factorizations) == (0, 0)
    assert solution.stats.stages.products > 0


@pytest.mark.parametrize(("gradient", "method"), taking_turns(["kvaerno5", "trbdf2", "sdirk2"], EXACT))
def test_the_work_of_a_stage_is_bounded(method, gradient):
    """On a problem that is not stiff Newton's iteration gains two digits each time, as do the transposed equations."""
    steps = 10
    solution = fixed(SmallNet(), start().requires_grad_(), method=method, steps=steps, gradient=gradient)
    solution.ys.sum().backward()
    work, stages = solution.stats.stages, steps * implicit_stages(method)
    assert stages <= work.iterations <= 8 * stages
    assert 1 <= work.jacobians <= 2 + stages // 4
    assert work.residual <= 16 * EPS
    if gradient != "backprop":
        assert stages <= solution.stats.stages_backward.products <= 8 * stages


def test_two_passes_count_for_themselves():
    solution = fixed(SmallNet(), start().requires_grad_())
    forward = str(solution.stats.stages)
    solution.ys.sum().backward()
    assert str(solution.stats.stages) == forward and "Newton iterations" in forward
    assert solution.stats.stages_backward is not solution.stats.stages


@pytest.mark.parametrize("method", ["sdirk2", "trbdf2", "kvaerno5"])
def test_a_stage_is_solved_to_rounding_error_however_fast_the_first_corrections_shrank(method, monkeypatch):
    """A fresh Jacobian removes most of the guess's error at once, but what is left shrinks a hundred times slower."""
    solve_stage, errors = StageSolver.solve, []

    def compared(self, f, t, y, hg, guess):
        z = solve_stage(self, f, t, y, hg, guess)
        other = self.for_another_pass()  # with a Jacobian at z
        errors.append(float((solve_stage(other, f, t, y, hg, z) - z).abs().max() / (y + z).abs().max()))
        return z

    monkeypatch.setattr(StageSolver, "solve", compared)
    with torch.no_grad():
        solve(Hires(), Hires.START, 40.0 * T, method=method, rtol=1e-5, atol=1e-7)
    assert len(errors) > 50
    assert max(errors) < 100 * EPS


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("step_size", [0.01, 0.05, 0.1])
def test_the_solution_beside_the_start_is_found_not_another_one(step_size, linear):
    """Robertson's equations, the second concentration in units of 1e-4, have another solution, where it is negative."""
    func, units = Robertson(), torch.tensor([1.0, 1e4, 1.0], dtype=torch.float64)
    found = solve(
        lambda t, y: func(t, y / units) * units, Robertson.START, 0.5 * T, method="implicit_euler", params=(),
        options={"step_size": step_size, "linear": linear},
    ).ys[-1, 1]  # fmt: skip
    assert found.item() == pytest.approx(0.3328, rel=0.01)  # that of kvaerno5 at rtol 1e-9


def test_an_explicit_method_has_no_stages_to_solve():
    solution = solve(SmallNet(), start().requires_grad_(), T)
    solution.ys.sum().backward()
    assert solution.stats.stages is None and solution.stats.stages_backward is None


class Token:
    """Something that a graph of f holds. alive, most: how many graphs there are, and have been at once."""

    alive = most = 0

    def __init__(self):
        Token.alive += 1
        Token.most = max(Token.most, Token.alive)

    def __del__(self):
        Token.alive -= 1


class _Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k):
        ctx.token = Token()
        return k.clone()

    @staticmethod
    def backward(ctx, k_bar):
        return k_bar


class Marked(SmallNet):
    """A network whose graphs are counted as long as they live."""

    def forward(self, t, y):
        k = super().forward(t, y)
        return _Marked.apply(k) if torch.is_grad_enabled() else k


@pytest.mark.parametrize("linear", ["dense", "batched", "gmres"])
@pytest.mark.parametrize("gradient", ["symplectic", "stages", "aca", "revolve"])
def test_graphs_of_func_do_not_add_up(gradient, linear):
    Token.alive = Token.most = 0
    func, y0 = Marked(), start().requires_grad_()
    solution = fixed(func, y0, gradient=gradient, options={"linear": linear})
    assert Token.alive == 0 and Token.most == 1
    Token.most = 0
    torch.autograd.grad(solution.ys.sum(), [y0, *func.inner.parameters()])
    assert Token.alive == 0
    one_step = METHODS["kvaerno3"].stages  # aca backpropagates through one step at a time
    assert Token.most == (one_step if gradient == "aca" else 1)
