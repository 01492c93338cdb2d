"""Stages that cannot be solved shorten the step or end the solve, and what implicit methods refuse."""

import pytest
import torch

import symplectic_adjoint as sa
from symplectic_adjoint import METHODS, StageNotSolved, UnsupportedCombination, solve
from tests.fields import Counted, SmallNet, start
from tests.gradients import EXACT, taking_turns

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
FEW_CALLS = 600
COMPILES_ITS_RULES = pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch, at the first forward mode


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def nan_beyond(edge):
    """Return the logarithmic growth of a state that has no rate beyond the edge, which long steps would cross."""
    return lambda t, y: torch.where(y < edge, 2.0 * y, torch.nan)


@pytest.mark.parametrize(("gradient", "method"), taking_turns(["kvaerno3", "trbdf2", "sdirk2", "kvaerno5"], EXACT))
def test_a_region_without_a_rate_is_not_entered(method, gradient):
    """y = e^(2t) reaches 7.39 at t = 1; a first step over the whole span tries states far beyond."""
    func, y0 = Counted(nan_beyond(7.5)), vector(1.0).requires_grad_()
    options = {"first_step": 1.0}
    solution = solve(func, y0, T, method=method, rtol=1e-3, atol=1e-3, options=options, gradient=gradient)
    assert solution.stats.rejected > 0 and func.calls < FEW_CALLS
    assert torch.allclose(solution.ys[-1], torch.exp(vector(2.0)), rtol=1e-2)
    (got,) = torch.autograd.grad(solution.ys[-1].sum(), y0)
    assert torch.allclose(got, solution.ys[-1].detach(), rtol=1e-9)  # f is linear


@pytest.mark.parametrize("method", ["kvaerno3", "trbdf2", "sdirk2"])
def test_a_kink_is_passed(method):
    func = Counted(lambda t, y: torch.where(y > 0.5, -30.0 * (y - 0.5), 0.0 * y) - 1.0)
    solution = solve(func, vector(1.0), T, method=method, rtol=1e-3, atol=1e-3, options={"first_step": 0.5})
    assert solution.ys[-1] < 0.5 and func.calls < FEW_CALLS


@pytest.mark.parametrize("method", ["kvaerno3", "trbdf2", "sdirk2"])
def test_a_sliding_mode_ends_in_an_error(method):
    """dy/dt = -sign(y) stays on y = 0, where no stage has a solution with either sign: steps shrink to nothing."""
    func = Counted(lambda t, y: torch.where(y > 0.0, -1.0, 1.0).to(y.dtype) + 0.0 * y)
    with pytest.raises(StageNotSolved, match=r"t = 0\.2\d* were not solved .* the one before \(linear solver: dense"):
        solve(func, vector(0.2), T, method=method, rtol=1e-3, atol=1e-3)
    assert func.calls < 40 * FEW_CALLS


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("method", ["implicit_euler", "kvaerno3", "crank_nicolson", "kencarp4"])
def test_a_fixed_step_is_not_shortened(method, linear):
    """The equation y = 1 + h g y^2 has no real solution for a large step."""
    func = Counted(lambda t, y: y * y)
    pair = (lambda t, y: 0.0 * y, func) if METHODS[method].additive else func
    with pytest.raises(StageNotSolved) as caught:
        solve(pair, vector(1.0), 100.0 * T, method=method, options={"step_size": 10.0, "linear": linear})
    assert f"(linear solver: {linear})" in str(caught.value) and "of the one before" in str(caught.value)
    assert "t = " in str(caught.value)
    assert caught.value.accepted == 0 and func.calls < FEW_CALLS


@pytest.mark.parametrize("linear", ["dense", "batched", "gmres"])
def test_a_matrix_that_is_singular_in_a_fixed_step_ends_the_solve(linear):
    """1 - h J = 0 exactly."""
    func = Counted(lambda t, y: 4.0 * y)
    with pytest.raises(StageNotSolved, match=f"linear solver: {linear}"):
        solve(
            func,
            torch.ones(2, 1, dtype=torch.float64),
            T,
            method="implicit_euler",
            options={"step_size": 0.25, "linear": linear},
        )
    assert func.calls < FEW_CALLS


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("method", ["kvaerno3", "sdirk2", "trbdf2"])
def test_a_matrix_that_is_singular_in_the_first_step_shortens_it(method, linear):
    rate = 1.0 / float(METHODS[method].diagonal[-1])
    func, options = Counted(lambda t, y: rate * y), {"first_step": 1.0, "linear": linear}
    solution = solve(func, vector(1.0), T, method=method, rtol=1e-3, atol=1e-3, options=options)
    assert solution.stats.rejected > 0 and func.calls < 2 * FEW_CALLS
    assert torch.allclose(solution.ys[-1].log(), vector(rate), rtol=1e-2)


def test_a_func_that_is_nan_from_some_time_on_ends_in_an_error():
    func = Counted(lambda t, y: -y if t < 0.5 else torch.nan * y)
    with pytest.raises(sa.SolverError, match=r"0\.5|0\.49"):
        solve(func, vector(1.0), T, method="kvaerno3", rtol=1e-3, atol=1e-3)
    assert func.calls < 4 * FEW_CALLS


@pytest.mark.parametrize("linear", ["dense", "gmres"])
@pytest.mark.parametrize("method", ["implicit_euler", "kvaerno5", "gl4"])
def test_an_unsolved_stage_says_that_func_is_not_finite(method, linear):
    func = lambda t, y: torch.where(t < 0.5, -y, torch.nan)  # noqa: E731
    with pytest.raises(sa.StageNotSolved, match=r", where func is not finite \(linear solver"):
        solve(func, vector(1.0), T, method=method, options={"step_size": 0.2, "linear": linear})


def test_min_step_ends_the_search_for_a_step():
    func = Counted(nan_beyond(2.0))
    with pytest.raises(sa.SolverError):
        solve(func, vector(1.0), T, method="trbdf2", rtol=1e-3, atol=1e-3, options={"min_step": 0.05})
    assert func.calls < FEW_CALLS


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"compile": True}, "compile=True"),
        ({"capture": True}, "capture=True"),
        ({"gradient": "mali"}, "gradient='mali'"),
        ({"gradient": "reversible"}, "gradient='reversible'"),
        ({"gradient": sa.Symplectic(graphs=3)}, "graphs"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["kvaerno3", "implicit_euler", "gl4"])
def test_what_does_not_go_with_an_implicit_method_is_refused(method, keywords, what):
    options = {} if METHODS[method].adaptive else {"step_size": 0.5}
    func = Counted(SmallNet())
    with pytest.raises(UnsupportedCombination, match=what):
        solve(func, start().requires_grad_(), T, method=method, options=options, **keywords)
    assert func.calls == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["kvaerno3", "implicit_euler"])
def test_autocast_is_refused(method, dtype):
    options, func = ({} if METHODS[method].adaptive else {"step_size": 0.5}), Counted(SmallNet().float())
    with torch.autocast("cpu", dtype), pytest.raises(UnsupportedCombination, match="autocast"):
        solve(func, start().float().requires_grad_(), T.float(), method=method, options=options)
    assert func.calls == 0


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
def test_a_complex_state_is_refused(dtype):
    func = Counted(lambda t, y: -y)
    with pytest.raises(UnsupportedCombination, match=f"{dtype}, only float32 or float64"):
        solve(func, torch.ones(3, dtype=dtype), T, method="kvaerno3", rtol=1e-4, atol=1e-4)
    assert func.calls == 0


@COMPILES_ITS_RULES
@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_function_transforms_are_refused(transform):
    func = Counted(lambda t, y: -y)

    def last(y0):
        return sa.odeint(func, y0, T, method="kvaerno3")[-1].sum()

    with pytest.raises(UnsupportedCombination, match=r"implicit, does not work with torch\.func"):
        transform(last)(start())
    assert func.calls == 0


@COMPILES_ITS_RULES
def test_forward_mode_is_refused():
    func = Counted(lambda t, y: -y)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(UnsupportedCombination, match="forward mode"):
        solve(func, torch.autograd.forward_ad.make_dual(start(), start()), T, method="kvaerno3")
    assert func.calls == 0


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("dopri5", {"linear": "dense"}, UnsupportedCombination, "option 'linear' belongs to implicit methods"),
        ("dopri5", {"preconditioner": id}, UnsupportedCombination, "option 'preconditioner' belongs to implicit"),
        ("kvaerno3", {"linear": "lu"}, ValueError, "must be one of 'auto', 'dense', 'batched', 'gmres', got 'lu'"),
        ("kvaerno3", {"preconditioner": id}, UnsupportedCombination, "belongs to linear='gmres'"),
        ("kvaerno3", {"preconditioner": id, "linear": "dense"}, UnsupportedCombination, "belongs to linear='gmres'"),
        ("kvaerno3", {"preconditioner": 3, "linear": "gmres"}, TypeError, "must be a function of"),
        ("kvaerno3", {"preconditioner": (id, 3), "linear": "gmres"}, TypeError, "must be a function of"),
    ],
)
def test_options_of_stages_are_checked(method, options, error, message):
    func = Counted(SmallNet())
    with pytest.raises(error, match=message):
        solve(func, start(), T, method=method, options=options)
    assert func.calls == 0


def test_batched_needs_a_batch():
    func = Counted(SmallNet())
    with pytest.raises(UnsupportedCombination, match="y0 has no batch"):
        solve(func, start()[0], T, method="kvaerno3", options={"linear": "batched"})
    assert func.calls == 0


@pytest.mark.parametrize("method", ["dopri5", "kvaerno3"])
def test_a_pair_needs_an_additive_method(method):
    func = Counted(SmallNet()), Counted(SmallNet())
    with pytest.raises(UnsupportedCombination, match="takes one function, got a pair"):
        solve(func, start(), T, method=method)
    assert func[0].calls == func[1].calls == 0


@pytest.mark.parametrize("method", ["kencarp4", "ars222"])
def test_an_additive_method_needs_a_pair(method):
    options = {} if METHODS[method].adaptive else {"step_size": 0.5}
    func = Counted(SmallNet())
    with pytest.raises(UnsupportedCombination, match=r"takes func as a pair: \(explicit, implicit\)"):
        solve(func, start(), T, method=method, options=options)
    assert func.calls == 0


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_tuple_that_is_no_pair_is_refused(count):
    func = Counted(SmallNet())
    with pytest.raises(TypeError, match="or a pair"):
        solve((func,) * count, start(), T, method="kencarp4")
    with pytest.raises(TypeError, match="or a pair"):
        solve((func, 3), start(), T, method="kencarp4")
    assert func.calls == 0
