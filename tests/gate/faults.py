"""Faults, each with the tests that must fail, or the metric by which the gate must turn red, once it is planted.

Each stands for a kind. A fault that passes its tests shows a hole in them: mend the tests, not this table. Where the
sources have changed, plant the fault anew.
"""

from dataclasses import dataclass

from tests.gate.copies import Plant

LIBRARY = "symplectic_adjoint/"
OF_LIBRARY = "tests/symplectic_adjoint/"

BY_HAND = f"{OF_LIBRARY}solve/test_control_by_hand.py::"
STEP_CONTROL = f"{OF_LIBRARY}solve/test_step_control.py::"
OBJECTS = f"{OF_LIBRARY}memory/test_objects_left.py::"


@dataclass(frozen=True)
class Fault:
    """A fault, and what must see it: tests, or the gate by a metric of some cell.

    in_ci: whether it is planted for every change, and not only at night. timed: whether the gate must measure times.
    """

    name: str
    plants: tuple[Plant, ...]
    tests: tuple[str, ...] = ()
    metric: str = ""
    in_ci: bool = False
    timed: bool = False


CONTROL = f"{LIBRARY}solve/step_control.py"
LOOP = f"{LIBRARY}solve/time_loop.py"
TRANSPOSE = f"{LIBRARY}steps/transpose.py"
CALL = "        made = self._f.linearize("
CLASS = "@dataclass\nclass StepCotangents"

COUNTED = "        self.vjps += 1\n"
IN_VAIN = """        from time import process_time
        end = process_time() + 1e-3
        while process_time() < end:
            pass
"""

FAULTS_OF_LIBRARY = (
    Fault(
        "an object of Python leaked in every step",
        (
            Plant(LOOP, "class Recorder(Protocol):", "LEAK = []\n\n\nclass Recorder(Protocol):"),
            Plant(
                LOOP,
                "            plans.append(plan)\n",
                "            plans.append(plan)\n            LEAK.append(object())\n",
            ),
        ),
        tests=(
            f"{OBJECTS}test_a_step_of_any_gradient_leaves_no_object[symplectic]",
            f"{OBJECTS}test_steps_of_control_leave_no_object[dopri5]",
        ),
    ),
    Fault(
        "an object leaked in every rejected step",
        (
            Plant(LOOP, "class Recorder(Protocol):", "LEAK = []\n\n\nclass Recorder(Protocol):"),
            Plant(
                LOOP,
                "            if not accepted:\n",
                "            if not accepted:\n                LEAK.append((plan, plan.h))\n",
            ),
        ),
        tests=(f"{OBJECTS}test_rejected_steps_leave_no_object",),
    ),
    Fault(
        "the norm of a structured state averaged over its parts",
        (Plant(f"{LIBRARY}field/layout.py", "torch.stack(norms).amax() if", "torch.stack(norms).mean() if"),),
        tests=(
            f"{BY_HAND}test_a_structured_state_is_controlled_by_its_worst_part",
            f"{OF_LIBRARY}field/test_layout.py::test_the_norm_of_a_structure_is_that_of_its_worst_part",
        ),
    ),
    Fault(
        "an error estimate doubled below rtol 1e-10",
        (
            Plant(
                CONTROL,
                "            numbers = [norms[0].item()] if",
                "            numbers = [norms[0].item() * (2.0 if self._smallest_rtol < 1e-10 else 1.0)] if",
            ),
        ),
        tests=(
            f"{BY_HAND}test_every_step_has_the_size_that_the_formula_gives[dopri5-1e-12-I]",
            f"{BY_HAND}test_the_error_ratio_is_the_norm_of_the_estimate_over_the_tolerance[1e-11]",
        ),
    ),
    Fault(
        "the exponent 0.3 for 0.4 in PI control",
        (Plant(CONTROL, "max(previous, 1e-4) ** (0.4 / order)", "max(previous, 1e-4) ** (0.3 / order)"),),
        tests=(
            f"{BY_HAND}test_every_step_has_the_size_that_the_formula_gives[bosh3-1e-05-PI]",
            f"{BY_HAND}test_the_factor_is_that_of_the_formula",
        ),
        in_ci=True,
    ),
    Fault(
        "the tolerance of a step from its start alone",
        (Plant(CONTROL, "self.tolerance(torch.maximum(y.abs(), y_end.abs()))", "self.tolerance(y.abs())"),),
        tests=(f"{BY_HAND}test_the_error_ratio_is_the_norm_of_the_estimate_over_the_tolerance[1e-06]",),
    ),
    Fault(
        "another weight of dop853's second estimate",
        (Plant(CONTROL, "high * high + 0.01 * low * low", "high * high + 0.1 * low * low"),),
        tests=(f"{BY_HAND}test_the_two_estimates_of_dop853_are_combined_as_published[1e-12]",),
    ),
    Fault(
        "a step that grows right after a rejected one",
        (
            Plant(
                f"{LIBRARY}solve/step_sequences.py",
                "                factor = min(factor, 1.0)\n",
                "                factor = min(factor, 1.2)\n",
            ),
        ),
        tests=(f"{STEP_CONTROL}test_a_rejected_step_is_retried_shorter_from_the_same_time_and_does_not_grow_at_once",),
    ),
    Fault(
        "one rejected step too many counted",
        (
            Plant(
                f"{LIBRARY}solve/step_sequences.py",
                "        self.rejected = 0\n        self._order",
                "        self.rejected = 1\n        self._order",
            ),
        ),
        tests=(f"{BY_HAND}test_rejected_steps_are_counted_one_by_one",),
    ),
    Fault(
        "first_step taken as twice what was given",
        (
            Plant(
                f"{LIBRARY}solve/step_sequences.py",
                "self._size = control.first_step or 0.0",
                "self._size = 2.0 * (control.first_step or 0.0)",
            ),
        ),
        tests=(f"{STEP_CONTROL}test_the_first_step_is_taken_as_given",),
    ),
    Fault(
        "the dense output of tsit5 one order lower",
        (
            Plant(
                f"{LIBRARY}methods/tableau.py",
                "        if self.interpolant is None:\n",
                '        if self.interpolant is None or self.name == "tsit5":\n',
            ),
        ),
        metric="f_calls_forward",
    ),
    Fault(
        "the time gradient of an output given to another's entry",
        (
            Plant(
                f"{LIBRARY}backward/sweep.py",
                "time_bars.add_output(j, bar)",
                "time_bars.add_output(j - 1, bar)",
            ),
        ),
        metric="error_discrete",
    ),
    Fault(
        "an extra f call",
        (Plant(TRANSPOSE, CALL, f"        self._f(step.time(i), step.y)\n{CALL}"),),
        metric="f_calls_backward",
        in_ci=True,
    ),
    Fault(
        "a leaked tensor",
        (
            Plant(TRANSPOSE, CLASS, f"LEAK = []\n\n\n{CLASS}"),
            Plant(TRANSPOSE, CALL, f"        LEAK.append(step.y.clone())\n{CALL}"),
        ),
        metric="peak_tensor_bytes",
        in_ci=True,
    ),
    Fault(
        "a gradient that is off by a millionth",
        (
            Plant(
                TRANSPOSE,
                "f.transpose(linearization, w, pull)",
                "f.transpose(linearization, w * (1 + 1e-6), pull)",
            ),
        ),
        metric="error_discrete",
        in_ci=True,
    ),
    Fault(
        "a sleep in every VJP",
        (
            Plant(
                f"{LIBRARY}field/field.py",
                COUNTED,
                f'{COUNTED}        __import__("time").sleep(1e-3)\n',
            ),
        ),
        metric="backward_waits",
        in_ci=True,
        timed=True,
    ),
    Fault(
        "a millisecond computed in vain in every VJP",
        (Plant(f"{LIBRARY}field/field.py", COUNTED, f"{COUNTED}{IN_VAIN}"),),
        metric="backward_over_calls",
        timed=True,
    ),
)
