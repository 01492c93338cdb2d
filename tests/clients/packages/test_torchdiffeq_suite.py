"""torchdiffeq's own tests on the functions that replace it. They are in its repository only: --torchdiffeq-tests."""

import re
import shutil
from pathlib import Path

import pytest

from tests.clients.packages.run_pytest import failures, outcome, run

FILES = ("api_tests.py", "event_tests.py", "gradient_tests.py", "norm_tests.py", "odeint_tests.py")
ALWAYS = {
    # The norm of the second solve is read from and written to grad_fn.adjoint_options.
    r"norm_tests.py::TestNorms::test_adjoint_norm": "private attributes of grad_fn",
    r"MinMaxStep::test_min_max_step": "fails with torchdiffeq itself: LSODA of SciPy takes more steps than it allows",
}
WITHOUT_SECOND_SOLVE = {
    # An exact gradient transposes the steps of the solve: it has no second solve that calls back or evaluates f.
    r"odeint_tests.py::TestCallbacks::test_steps": "callbacks of the second solve",
    r"odeint_tests.py::TestDiscontinuities::test_odeint_perturb": "the times at which a second solve calls f",
}


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ("symplectic", ALWAYS | WITHOUT_SECOND_SOLVE),
        ("continuous", ALWAYS),
    ],
)
def test_all_but_what_they_read_of_torchdiffeqs_inside(gradient, expected, tmp_path, request):
    folder = request.config.getoption("--torchdiffeq-tests")
    if folder is None:
        pytest.skip("torchdiffeq's tests are not in its distributions: give --torchdiffeq-tests")
    for path in Path(folder).glob("*.py"):
        shutil.copy(path, tmp_path)
    output = run(tmp_path, *FILES, environment={"SYMPLECTIC_ADJOINT_GRADIENT": gradient})
    failed = failures(output)
    unexpected = [line for line in failed if not any(re.search(pattern, line) for pattern in expected)]
    assert unexpected == []
    assert outcome(output).get("passed", 0) > 15, output[-5000:]
    without = [reason for pattern, reason in expected.items() if not any(re.search(pattern, line) for line in failed)]
    assert without == [], "these pass now: take them off the list"
