"""One step computed by hand: h = 1/2 from (0, 1) with f(t, y) = 2 y + t. All numbers are exact in binary."""

from dataclasses import replace

import pytest
import torch

from symplectic_adjoint import METHODS
from symplectic_adjoint.errors import NonFiniteError
from symplectic_adjoint.field.resolution import Resolution
from symplectic_adjoint.methods.interpolant import hermite
from symplectic_adjoint.steps.runge_kutta import Step, combine, nonzero, weighted_sum
from tests.symplectic_adjoint.steps.slope import Slope

HEUN2 = METHODS["adaptive_heun"]
HERMITE = replace(HEUN2, interpolant=hermite(HEUN2.b, HEUN2.A, HEUN2.c, order=2))


def number(x):
    return torch.tensor([x], dtype=torch.float64)


def a_step(tableau=HEUN2, f=None, **known):
    return Step(f or Slope(), tableau, 0.0, 0.5, 0.5, number(1.0), **known)


def test_the_stages_and_the_end():
    # k_1 = 2, Y_2 = 1 + 2/2 = 2, k_2 = 4 + 1/2, y+ = 1 + (2 + 4.5)/4.
    step = a_step()
    assert [k.item() for k in step.evaluate(2)] == [2.0, 4.5]
    assert (step.state(1).item(), step.end().item()) == (2.0, 2.625)
    assert step.f.f_calls == 2


def test_a_stage_in_between_has_its_own_time():
    # midpoint: k_1 = 2, Y_2 = 1 + 2/4, k_2 = 3 + 1/4, y+ = 1 + 3.25/2.
    step = a_step(METHODS["midpoint"])
    assert step.end().item() == 2.625 and step.f.times == [0.0, 0.25]


def test_stages_are_evaluated_when_needed_and_once():
    step = a_step()
    step.evaluate(1)
    assert step.f.f_calls == 1
    step.end(), step.end(), step.evaluate(2)
    assert step.f.f_calls == 2


def test_a_stage_and_an_end_that_are_known_are_not_computed():
    step = a_step(ks=[number(3.0)])
    # k_1 = 3: Y_2 = 2.5, k_2 = 5.5, y+ = 1 + 8.5/4.
    assert step.end().item() == 3.125 and step.f.f_calls == 1
    assert a_step(end=number(7.0)).end().item() == 7.0


def test_the_error_estimate_is_the_difference_of_both_formulas():
    # Euler's method ends at 1 + 2/2: h (k_2 - k_1)/2 = 0.625.
    assert [error.item() for error in a_step().errors()] == [0.625]


def test_rounding_sums_the_sizes_of_the_stages():
    # eps h (|-1/2| 2 + |1/2| 4.5), whatever the sign of h.
    for sign in (1.0, -1.0):
        step = Step(Slope(), HEUN2, 0.0, sign * 0.5, sign * 0.5, number(1.0))
        step.ks = [number(2.0), number(-4.5)]
        assert [x.item() for x in step.rounding(Resolution(2.0**-10, 2.0**-10))] == [1.625 * 2.0**-10]


def test_dense_output_is_the_methods_own():
    # b(1/2) = (3/8, 1/8), b'(1/2) = (1/2, 1/2).
    step = a_step()
    assert step.output(0.5).item() == 1 + (0.75 + 0.5625) / 2
    assert [step.slope(sigma).item() for sigma in (0.0, 0.5, 1.0)] == [2.0, 3.25, 4.5]
    assert step.f.f_calls == 2


def test_the_cubic_goes_through_both_ends_with_their_slopes():
    # f at the end: 2 (2.625) + 1/2 = 5.75. At 1/2: (1 + 2.625)/2 + h (2 - 5.75)/8, and the slope there is
    # 3/2 (2.625 - 1)/h - (2 + 5.75)/4.
    step = a_step(HERMITE)
    assert step.output(0.5).item() == 1.578125
    assert step.slope(0.5).item() == 2.9375
    assert (step.output(0.0).item(), step.output(1.0).item()) == (1.0, 2.625)
    assert (step.slope(0.0).item(), step.slope(1.0).item()) == (2.0, 5.75)
    assert step.f.f_calls == 3


def test_a_slope_has_the_shape_of_the_state_if_f_is_constant():
    step = Step(Slope(), HEUN2, 0.0, 0.5, 0.5, torch.ones(2, 3))
    step.ks = [torch.zeros(2, 3)] * 2
    assert step.slope(0.5).shape == (2, 3)


class TestEnds:
    def test_f_at_the_end_is_the_next_steps_first_stage_if_it_was_evaluated(self):
        step = a_step(HERMITE)
        step.evaluate(2)
        assert step.end_slope() is None
        step.evaluate(3)
        assert step.end_slope().item() == 5.75

    def test_a_jump_at_the_end_makes_it_useless(self):
        step = a_step(HERMITE, open_ends=(False, True))
        step.evaluate(3)
        assert step.end_slope() is None

    def test_beside_a_jump_f_is_evaluated_just_inside_the_step(self):
        for open_ends, times in (((True, True), [1 / 64, 0.5 - 1 / 64]), ((False, False), [0.0, 0.5])):
            step = a_step(open_ends=open_ends)
            step.evaluate(2)
            assert step.f.times == times

    def test_a_step_back_is_inside_on_the_other_side(self):
        step = Step(Slope(), METHODS["heun2"], 0.5, -0.5, 0.0, number(1.0), open_ends=(True, True))
        step.evaluate(2)
        assert step.f.times == [0.5 - 1 / 64, 1 / 64]

    def test_the_last_stage_is_at_the_time_that_the_step_is_pinned_to(self):
        step = Step(Slope(), METHODS["heun2"], 0.0, 0.5, 0.5 + 2**-20, number(1.0))
        step.evaluate(2)
        assert step.f.times == [0.0, 0.5 + 2**-20]


class TestSums:
    def test_terms_are_added_in_one_new_tensor(self):
        y, ks = number(1.0), [number(2.0), number(4.0)]
        assert combine(y, 0.5, [(0, 3.0), (1, -1.0)], ks).item() == 2.0
        assert [y.item(), *(k.item() for k in ks)] == [1.0, 2.0, 4.0]
        assert combine(y, 0.5, [], ks) is y

    def test_tensor_weights_stay_on_the_graph(self):
        weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        total = combine(number(1.0), 0.5, [(0, 0.5), (0, weight), (0, 0.5)], [number(2.0)])
        total.backward()
        assert (total.item(), weight.grad.item()) == (5.0, 1.0)

    def test_only_the_float_zero_is_no_term(self):
        zero = torch.tensor(0.0)
        assert nonzero([0.0, 2.0, zero, -1.0]) == [(1, 2.0), (2, zero), (3, -1.0)]

    def test_a_weighted_sum_of_nothing_is_none(self):
        assert weighted_sum(0.5, []) is None
        x = number(4.0)
        assert weighted_sum(0.5, [(3.0, x), (1.0, x)]).item() == 8.0 and x.item() == 4.0


class TestNotFinite:
    def test_the_stage_is_named_by_number_from_one_with_its_time(self):
        step = a_step()
        step.ks = [number(2.0), number(torch.inf)]
        error = step.non_finite_error(7)
        assert isinstance(error, NonFiniteError)
        assert "at t = 0.5 (step 7, stage 2): y[0] is inf" in str(error)

    @pytest.mark.parametrize(("end", "said"), [(torch.nan, "y[0] is nan"), (1.0, "its error estimate overflowed")])
    def test_otherwise_the_state_is_or_the_estimate(self, end, said):
        message = str(a_step(end=number(end)).non_finite_error(3))
        assert message == f"the state stopped being finite in step 3 from t = 0 by h = 0.5: {said}"


def test_a_stage_that_func_overwrote_is_refused():
    step = a_step()
    step.evaluate(2)[0].add_(1.0)
    with pytest.raises(ValueError, match="func wrote into a tensor that it had returned before"):
        step.end()
    known = number(2.0)
    step = a_step(ks=[known])
    known.add_(1.0)
    with pytest.raises(ValueError, match="func wrote into a tensor that it had returned before"):
        step.end()
