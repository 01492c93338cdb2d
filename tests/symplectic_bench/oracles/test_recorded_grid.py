"""The oracle against the gradients that it checks, and against calculation by hand."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from symplectic_adjoint import GRADIENTS, METHODS, Reversible
from symplectic_adjoint.methods.registry import EXPLICIT_METHODS, IMPLICIT_METHODS
from symplectic_adjoint.steps import cotangent_sums
from symplectic_bench.contenders.counted_field import CountedField
from symplectic_bench.contenders.registry import CONTENDERS, decline
from symplectic_bench.contenders.torchdiffeq import THEIR_NAME
from symplectic_bench.measure import gradient_error
from symplectic_bench.measure.gradient_error import discrete_error, measure_gradient_error
from symplectic_bench.oracles import recorded_grid as oracle
from symplectic_bench.oracles.recorded_grid import equal_steps, gradient, relative_error, replay, why_not_replayed
from symplectic_bench.problems import PROBLEMS, build
from tests.gradients import EXACT, OWN_STEPS
from tests.symplectic_bench.sample_cells import FIXED, make_cell

ROUNDING = 1e-12
THEIRS = [
    "euler", "midpoint", "heun2", "heun3", "rk38",
    "adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8",
]  # fmt: skip


def small_problem(name="van_der_pol", dtype="float64", **sizes):
    return PROBLEMS[name].build({"end": 1.0, "outputs": 3, **sizes}, 2, dtype)


def steps_or_tolerance(method, fixed):
    return {"method": method, **FIXED, "steps": 7} if fixed else {"method": method, "rtol": 1e-4, "atol": 1e-4}


def observe(**changes):
    cell = make_cell(problem="van_der_pol", sizes={"end": 1.0, "outputs": 3}, batch=2, **changes)
    problem = PROBLEMS["van_der_pol"].build(cell.sizes_dict, 2, cell.dtype)
    return CONTENDERS[cell.contender].observe(problem, cell), problem


def test_two_steps_of_euler_by_hand():
    problem = small_problem("linear", dim=2, outputs=1)
    h, (A,) = 0.5, problem.parameters
    step = torch.eye(2, dtype=torch.float64) + h * A
    ys = replay(METHODS["euler"], problem, equal_steps(problem.t, 2))
    # A few float64 operations.
    torch.testing.assert_close(ys[-1], problem.y0 @ (step @ step).T, rtol=1e-15, atol=1e-15)


def test_equal_steps_end_at_the_last_time():
    grid = equal_steps(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), 6)
    assert float(grid.t[-1] + grid.h[-1]) == pytest.approx(4.0, rel=1e-15)
    assert len(grid.t) == 6


@pytest.mark.parametrize("fixed", [False, True], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("method", EXPLICIT_METHODS)
def test_the_replay_reproduces_the_solution_of_the_library(method, fixed):
    if not fixed and not METHODS[method].adaptive:
        fixed = True  # methods without an error estimate take fixed steps only
    observation, problem = observe(**steps_or_tolerance(method, fixed))
    assert callable(observation.replay)
    found = observation.replay(problem)[-1]
    assert relative_error([observation.final_state], [found]) < ROUNDING


@pytest.mark.parametrize("gradient_name", EXACT)
def test_exact_gradients_equal_that_of_the_replay(gradient_name):
    observation, problem = observe(gradient=gradient_name)
    assert discrete_error(observation, problem)["error_discrete"] < ROUNDING


def test_a_float32_gradient_is_compared_in_float64():
    observation, problem = observe(dtype="float32", rtol=1e-3, atol=1e-3)
    error = discrete_error(observation, problem)
    # Rounding level in float32, at least that of one operation.
    assert 1e-9 < error["error_discrete"] < 1e-4 and error["error_discrete_oracle"] == "float64"


@pytest.mark.parametrize("oracle_of", ["50 digits", "float64"])
def test_a_relative_error_of_a_millionth_in_one_stage_is_detected(oracle_of, monkeypatch):
    whole = cotangent_sums.weighted_sum

    def wrong(h, terms):
        w = whole(h, terms)
        return None if w is None else w * (1.0 + 1e-6 * (len(terms) == 3))

    monkeypatch.setattr(cotangent_sums, "weighted_sum", wrong)
    if oracle_of == "float64":
        monkeypatch.setattr(gradient_error, "MAX_SIZE_IN_DIGITS", 0)
    observation, problem = observe(rtol=1e-4, atol=1e-4)
    found = discrete_error(observation, problem)
    assert found["error_discrete_oracle"] == oracle_of and 1e-9 < found["error_discrete"] < 1e-5


def test_the_continuous_gradient_differs_from_that_of_the_replay():
    observation, problem = observe(gradient="continuous")
    assert discrete_error(observation, problem)["error_discrete"] > 1e-9


@pytest.mark.parametrize("method", THEIRS)
def test_the_replay_reproduces_the_solution_of_torchdiffeq(method):
    changes = steps_or_tolerance(method, fixed=not METHODS[method].adaptive)
    observation, problem = observe(contender="torchdiffeq", gradient="backprop", **changes)
    assert callable(observation.replay)
    ys = observation.replay(problem)
    assert relative_error([observation.final_state], [ys[-1]]) < ROUNDING
    assert problem.loss(ys).item() == pytest.approx(observation.loss, rel=ROUNDING)  # uses all outputs
    assert observation.counts.steps_accepted == (
        7 if not METHODS[method].adaptive else observation.counts.steps_accepted
    )


def test_with_fixed_steps_backprop_through_torchdiffeq_equals_that_of_the_replay():
    observation, problem = observe(
        contender="torchdiffeq", gradient="backprop", **steps_or_tolerance("rk38", fixed=True)
    )
    assert discrete_error(observation, problem)["error_discrete"] < ROUNDING


def test_methods_of_torchdiffeq_equal_ours_of_the_same_name():
    for method in THEIRS:
        assert decline(make_cell(contender="torchdiffeq", gradient="backprop", **steps_or_tolerance(
            method, fixed=not METHODS[method].adaptive))) is None  # fmt: skip
    assert THEIR_NAME == {"rk38": "rk4"}
    ours, _ = observe(**steps_or_tolerance("rk38", fixed=True))
    theirs, _ = observe(contender="torchdiffeq", gradient="backprop", **steps_or_tolerance("rk38", fixed=True))
    assert relative_error([theirs.final_state], [ours.final_state]) < ROUNDING


@pytest.mark.parametrize("gradient_name", GRADIENTS)
def test_our_counts_are_those_of_a_counting_field(gradient_name):
    cell = make_cell(problem="van_der_pol", sizes={"end": 1.0}, batch=2, gradient=gradient_name)
    problem = PROBLEMS["van_der_pol"].build(cell.sizes_dict, 2, "float64")
    stats = CONTENDERS["ours"].observe(problem, cell).counts
    counted = CountedField(problem.func)
    run = CONTENDERS["ours"].gradient(type(problem)(counted, problem.y0, problem.t, problem.loss), cell)
    run.forward()
    counted.backward_phase = True
    run.backward()
    seen = counted.counts(stats.steps_accepted, stats.steps_rejected)
    assert replace(seen, steps_backward=stats.steps_backward) == stats  # a field cannot count steps


def test_the_gradient_of_an_unused_parameter_is_zero():
    problem = small_problem()
    problem.func.register_parameter("unused", torch.nn.Parameter(torch.ones(2, dtype=torch.float64)))
    grid = equal_steps(problem.t, 2)
    found = gradient(problem, replay(METHODS["euler"], problem, grid))
    assert len(found) == 3 and torch.equal(found[-1], torch.zeros(2, dtype=torch.float64))


def test_the_relative_error_is_a_norm_of_all_entries_together():
    a, b = [torch.tensor([3.0]), torch.tensor([[4.0]])], [torch.tensor([0.0]), torch.tensor([[5.0]])]
    assert relative_error(a, b) == pytest.approx((9 + 1) ** 0.5 / 5)


def test_the_oracle_shares_only_data_with_the_library():
    tree = ast.parse(Path(oracle.__file__).read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "symplectic_adjoint"
        for alias in node.names
    }
    assert names == {"ButcherTableau", "Grid"}
    assert Reversible().coupling == oracle.COUPLING


@pytest.mark.parametrize("name", OWN_STEPS)
@pytest.mark.parametrize("how", [{"rtol": 1e-3, "atol": 1e-3}, {"steps": 20, **FIXED}], ids=["tolerance", "steps"])
def test_the_replay_of_reversible_steps_has_their_gradient(name, how, tmp_path):
    cell = make_cell(gradient=name, **how)
    problem = build(cell, tmp_path)
    observation = CONTENDERS["ours"].observe(problem, cell)
    assert discrete_error(observation, problem)["error_discrete"] < ROUNDING


class TestDecline:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"contender": "theirs"}, "no contender 'theirs'"),
            ({"gradient": "exact"}, "no gradient 'exact'"),
            ({"method": "rk5"}, "no method 'rk5'"),
            ({"method": "rk4"}, "takes steps, not tolerances"),
            ({"contender": "torchdiffeq", "gradient": "symplectic"}, "no gradient 'symplectic'"),
            ({"contender": "torchdiffeq", "gradient": "backprop", "method": "tsit5"}, "no method 'tsit5'"),
            ({"contender": "torchdiffeq", "gradient": "backprop", "method": "rk38"}, "takes steps, not tolerances"),
            ({"contender": "torchdiffeq", "gradient": "backprop", "method": "rk4", **FIXED, "steps": 3}, "3/8 rule"),
            ({"contender": "torchdiffeq", "gradient": "backprop", **FIXED, "steps": 3}, "tolerances only"),
            (
                {"contender": "torchdiffeq", "gradient": "continuous-seminorm", "method": "euler", **FIXED, "steps": 3},
                "estimates no error",
            ),
        ],
    )
    def test_an_impossible_pair_has_a_reason(self, changes, reason):
        assert reason in str(decline(make_cell(**changes)))

    def test_possible_pairs_are_not_declined(self):
        assert decline(make_cell()) is None
        assert decline(make_cell(contender="torchdiffeq", gradient="continuous-seminorm")) is None


@pytest.mark.parametrize(
    ("gradient_name", "outputs"), [("symplectic", 1), ("symplectic", 3), ("backprop", 3), ("reversible", 1)]
)
def test_a_jump_is_seen_from_the_side_of_each_step(gradient_name, outputs, tmp_path):
    """Steps end on the jump, so a stage at a step's end would otherwise evaluate the field beyond it."""
    cell = make_cell(problem="forced", sizes={"outputs": outputs}, gradient=gradient_name, rtol=1e-4, atol=1e-4)
    row = {}
    for values in measure_gradient_error(cell, tmp_path):
        row |= values
    assert row["error_discrete"] < 1e-13


@pytest.mark.parametrize(
    ("method", "numbers", "replayed"), [("dopri5", 600, True), ("sdirk2", 512, True), ("sdirk2", 513, False)]
)
def test_large_states_are_not_solved_for(method, numbers, replayed):
    reason = why_not_replayed(METHODS[method], torch.zeros(1, numbers))
    assert reason == (None if replayed else "implicit steps of more than 512 numbers are not replayed")


@pytest.mark.parametrize(("numbers", "replayed"), [(170, True), (171, False)])
def test_three_coupled_stages_have_three_times_as_many_numbers(numbers, replayed):
    reason = why_not_replayed(METHODS["gl6"], torch.zeros(1, numbers))
    assert reason == (None if replayed else "coupled stages of more than 512 numbers are not replayed")


@pytest.mark.parametrize("method", IMPLICIT_METHODS)
def test_a_replay_solves_for_the_stages_of_an_implicit_method(method, tmp_path):
    how = {"rtol": 1e-3, "atol": 1e-3} if METHODS[method].adaptive else {"steps": 5, "rtol": None, "atol": None}
    sizes = {"width": 4, "end": 0.2, "outputs": 1, "rate": 100.0}
    cell = make_cell(problem="stiff_spiral", sizes=sizes, method=method, batch=2, **how)
    row = {}
    for values in measure_gradient_error(cell, tmp_path):
        row |= values
    assert row["error_discrete"] < 1e-12 and row["error_discrete_oracle"] == "float64"
