"""Run a case with the library and with the truth, and say how it ended."""

import re
import warnings
from dataclasses import replace

from tests.generated.dtypes import DTYPES, OF_AUTOCAST
from tests.generated.outcome import Outcome
from tests.generated.refusals import REFUSALS, TORCHDIFFEQ_TOO, is_own
from tests.generated.script import Script
from tests.generated.solvers import LOOSE, TIGHT, Library, Replay, Torchdiffeq
from tests.generated.world import TrueWorld, World


def run(case, library=Library):
    """Return the outcome of a case with a solver, this library's unless the generator itself is tested."""
    library, world = library(case), World(case)
    script = Script(case, world, library)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = script.run()
    except Exception as error:
        return _of_error(case, error)
    true_world = TrueWorld(case)
    true = Script(case, true_world, Replay(case, library.grids), passes=of_truth(case.passes))
    expected = true.run()
    if case.passes == "twice":
        expected |= {f"{name} again": x for name, x in expected.items()}
    wrong = compared(case, got | script.values | world.left(), expected | true.values | true_world.left())
    return wrong or Outcome("right")


def of_truth(passes):
    """Return the passes in which the truth computes the same: with everything on one graph, once."""
    return {"twice": "once", "upstream afterwards": "once"}.get(passes, passes)


def _of_error(case, error):
    message = f"{type(error).__name__}: {error}"
    for name, refusal in REFUSALS.items():
        named = type(error).__name__ in refusal.exceptions and re.search(refusal.says, str(error))
        if refusal.applies(case) and named:
            return Outcome("refused", name)
    if not is_own(error):
        return Outcome("crash", message)
    return Outcome("refused", TORCHDIFFEQ_TOO) if not torchdiffeq_runs(case) else Outcome("false refusal", message)


def torchdiffeq_runs(case):
    """Return whether torchdiffeq.odeint takes the user's code of this case to a gradient, if nothing changes."""
    case = replace(case, change="nothing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Script(case, World(case), Torchdiffeq(case)).run()
    except Exception:
        return False
    return True


def tolerance_of(case):
    """Return the relative error that is allowed."""
    dtype = DTYPES[case.dtype].tolerance
    if case.autocast:
        dtype = OF_AUTOCAST
    if case.gradient == "continuous":
        # Its error is that of two solves at their tolerance, in a sum over some hundred terms.
        return max(dtype, 3000 * TIGHT.get(case.dtype, LOOSE))  # 1,300 at most in 10,000 cases
    # Coefficients of dense output up to 545, and states that are found by undoing steps, which adds their rounding.
    enlarged = case.method == "dop853" or case.gradient in ("mali", "reversible")
    return (10.0 if dtype < 1e-3 else 3.0) * dtype if enlarged else dtype


def compared(case, got, expected):
    """Return the wrong outcome if any value or gradient is off, else None."""
    tolerance = tolerance_of(case)
    scale = max((float(x.detach().norm()) for x in expected.values() if x is not None), default=0.0)
    worst = (0.0, "")
    for name, true in expected.items():
        mine = got.get(name)
        if mine is None or true is None:
            present = true if mine is None else mine
            error = 0.0 if present is None or not present.detach().any() else float("inf")
        else:
            mine, true = mine.detach(), true.detach()
            # Terms that cancel leave rounding errors of the size of other gradients: hence a tenth of the largest.
            error = float((mine.to(true.dtype) - true).norm() / (true.norm() + 0.1 * scale + 1e-300))
        if not error <= worst[0]:
            worst = (error, name)
    if worst[0] <= tolerance:
        return None
    return Outcome("wrong", f"{worst[1]}: relative error {worst[0]:.1e}, allowed {tolerance:.0e}")
