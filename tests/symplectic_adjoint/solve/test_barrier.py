"""A time at which f stops being finite: what is remembered of the steps that failed before it."""

import pytest

from symplectic_adjoint.errors import NonFiniteError
from symplectic_adjoint.solve.barrier import LEAST, Barrier, final_error
from symplectic_adjoint.solve.grid import FREE, StepPlan

ERROR = NonFiniteError("func is infinite", None)


def plan(h, pinned_to=FREE, t=0.0):
    return StepPlan(t, h, t + h, pinned_to)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_is_passed_at_the_nearest_time_that_failed(sign):
    barrier = Barrier(plan(sign * 1.0))
    for h in (1.0, 0.5, 0.75):
        barrier.meet(plan(sign * h), ERROR)
    assert barrier.failure is ERROR
    passed = [barrier.is_passed(sign * t) for t in (0.0, 0.49, 0.5, 0.75)]
    assert passed == [False, False, True, True]


def test_it_is_final_where_steps_are_smaller_than_any_that_passes():
    barrier = Barrier(plan(8.0))
    barrier.meet(plan(2 * LEAST * 8.0), ERROR)
    assert not barrier.is_final
    barrier.meet(plan(-LEAST * 8.0), ERROR)
    assert barrier.is_final


def test_after_three_failures_on_a_pin_steps_go_nearly_up_to_it():
    barrier = Barrier(plan(1.0, 3))
    for _ in range(3):
        barrier.meet(plan(1.0, 3), ERROR)
        barrier.meet(plan(1.0), ERROR)
        assert barrier.retry(plan(1.0, 3), 0.2) == 0.2
    barrier.meet(plan(1.0, 3), ERROR)
    assert barrier.retry(plan(-1.0, 3), 0.2) == 0.9
    assert barrier.retry(plan(1.0), 0.2) == 0.2


def test_the_last_error_says_how_small_steps_became():
    error = final_error(NonFiniteError("y[3] is inf", None), -0.25)
    assert str(error).startswith("y[3] is inf; shorter steps, down to 0.25, did not avoid it")
