"""The number of f calls that a gradient cannot avoid."""

from symplectic_bench.contenders.gradient_records import Symbols, gradient_record
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import is_users_problem


def formula_f_calls(row: Measurement) -> int | None:
    """Return the f calls, forward and backward together, that the row's gradient cannot avoid; None if unknown.

    For N accepted and R rejected steps of s stages, the forward pass makes N s calls, and s for each rejected step (s -
    1 unless the method is FSAL, because k_1 is still available). With tolerances, each of M components adds one for the
    initial step size, and one for the first k_1 of an FSAL method. The calls of the backward pass are in the gradient's
    record. The number is known only if the single output is at the end, which a user's problem does not say. An
    implicit method makes as many calls as its stages take iterations.
    """
    if is_users_problem(row.problem) or is_implicit(row.method):
        return None
    N, R, s = row.steps_accepted, row.steps_rejected, row.stages
    backward_calls = gradient_record(row.gradient).backward_calls
    if N is None or R is None or s is None or backward_calls is None or row.sizes.get("outputs", 1) != 1:
        return None
    M = int(row.sizes.get("components", 1))
    forward = N * s
    if row.rtol is not None:
        fsal = is_fsal(row.method)
        forward += R * (s if fsal else s - 1) + M * (1 + fsal)
    return forward + backward_calls(Symbols(N, s, M))


def is_implicit(method: str) -> bool:
    """Return whether a method solves for its stages."""
    from symplectic_adjoint import METHODS  # as in is_fsal

    return method in METHODS and METHODS[method].implicit


def is_fsal(method: str) -> bool:
    """Return whether a method's last stage is the next step's first."""
    # Imported here because the library imports torch, which takes seconds and is needed only by commands that read
    # rows.
    from symplectic_adjoint import METHODS

    return method in METHODS and METHODS[method].fsal
