"""Cells and rows made by hand, with plausible numbers that nobody measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status

OURS = ("backprop", "baseline", "aca", "stages", "symplectic", "continuous")
PEERS = ("backprop", "continuous", "continuous-seminorm")
NINE = (*(("ours", gradient) for gradient in OURS), *(("torchdiffeq", gradient) for gradient in PEERS))

# Multiples of a floor: (time, exact?) and, below, bytes in D and A of the formulas.
_TIME = {"backprop": 1.5, "baseline": 2.0, "aca": 2.1, "stages": 2.2, "symplectic": 2.7, "continuous": 3.4}


def a_cell(**changes: Any) -> Cell:
    cell = Cell(
        suite="small",
        problem="mlp",
        sizes=(("layers", 2), ("state", 32), ("width", 64)),
        batch=128,
        method="dopri5",
        rtol=1e-6,
        atol=1e-8,
        steps=None,
        gradient="symplectic",
        contender="ours",
        dtype="float64",
        device="cpu",
        threads=1,
        seed=0,
    )
    return replace(cell, **changes)


def a_row(cell: Cell | None = None, **changes: Any) -> Measurement:
    """Return a finished row with the formulas' numbers: D = 32 KiB, A = 8 D, six stages, more steps at smaller rtol."""
    cell = cell or a_cell()
    N, s, D = round(8 * (1e-3 / (cell.rtol or 1e-3)) ** 0.2), 6, cell.batch * 256
    A, exact = 8 * D, "continuous" not in cell.gradient
    peak = {
        "symplectic": (N + s) * D + A,
        "aca": N * D + s * A,
        "stages": N * s * D + A,
        "baseline": D + N * s * A,
        "backprop": N * s * A,
    }.get(cell.gradient, 6 * D + A)
    slower = 1.3 if cell.contender == "torchdiffeq" else 1.0
    total_s = changes.get("total_s") or 1e-4 * N * s * _TIME.get(cell.gradient, 2.9) * slower
    row = Measurement.for_cell(
        cell,
        status=Status.OK,
        f_calls_forward=N * s + 2,
        f_calls_backward=N * s,
        vjps_forward=0,
        vjps_backward=N * s,
        stages=s,
        steps_accepted=N,
        steps_rejected=1,
        forward_s=total_s / 3,
        backward_s=total_s * 2 / 3,
        total_s=total_s,
        forward_samples_s=[total_s / 3] * 5,
        backward_samples_s=[total_s * 2 / 3] * 5,
        f_call_s=4e-5,
        vjp_call_s=8e-5,
        floor_s=1e-4 * N * s,
        peak_tensor_bytes=round(peak * slower),
        peak_tensor_source="exact",
        floor_tensor_bytes=A + 2 * D,
        state_bytes=D,
        graph_bytes=A,
        parameter_bytes=50_000,
        peak_rss_bytes=round(peak * slower) + 2**21,
        error_discrete=3e-16 if exact else 30 * (cell.rtol or 1e-3),
        error_discrete_oracle="float64",
        error_true=(cell.rtol or 1e-3) * (2 if exact else 40),
        error_true_bar=3e-10,
        forward_error=2.0,
        forward_disagrees=False,
        loss=1.25,
    )
    return replace(row, **changes)


def group(contenders: Sequence[tuple[str, str]] = NINE, **changes: Any) -> list[Measurement]:
    """Return a row for each of several contenders and gradients that share everything else."""
    return [a_row(a_cell(contender=c, gradient=g, **changes)) for c, g in contenders]


def first_look() -> list[Measurement]:
    """Rows shaped like those of suite quick, with a failure of every kind."""
    rows = [row for rtol in (1e-3, 1e-6, 1e-9) for row in group(rtol=rtol, atol=rtol / 100)]
    for data, batch in (("digits", 100), ("breast_cancer", 90), ("wine", 80)):
        sizes = (("data", data), ("width", 64))
        flow = {"problem": "flow", "sizes": sizes, "batch": batch, "dtype": "float32", "rtol": 1e-5, "atol": 1e-7}
        rows += group(NINE[:-1], **flow)
    rows += group(problem="van_der_pol", sizes=(("mu", 1.0),), batch=64)
    failures = {
        20: {"status": Status.TIMEOUT, "reason": "no result within 60 s", "total_s": None, "peak_tensor_bytes": None},
        30: {"status": Status.OOM, "reason": "killed", "total_s": None, "peak_tensor_bytes": None},
        40: {"forward_disagrees": True, "forward_error": 1234.5},
        50: {"status": Status.DIVERGED, "reason": "step size underflow", "total_s": None, "error_true": None},
        51: {"status": Status.ERROR, "reason": "ValueError: a | b", "total_s": None, "error_true": None},
        52: {"status": Status.SKIPPED, "reason": "declined", "total_s": None, "error_true": None},
    }
    for place, changes in failures.items():
        rows[place] = replace(rows[place], **changes)
    return rows


UNMEASURED = {
    name: None
    for name in (
        "forward_s", "backward_s", "total_s", "f_call_s", "vjp_call_s", "floor_s", "peak_tensor_bytes",
        "peak_tensor_source", "floor_tensor_bytes", "state_bytes", "graph_bytes", "peak_rss_bytes",
    )
}  # fmt: skip
"""The fields that rows of a suite that measures only errors lack."""


def errors_alone() -> list[Measurement]:
    """Return rows over tolerances, where the continuous gradient wins at the loosest, and steps in two dtypes."""
    rows = [row for rtol in (1e-2, 1e-4, 1e-6) for row in group(rtol=rtol, atol=rtol)]
    rows = [replace(row, error_true_reference="Taylor series", error_true_bar=1e-30, **UNMEASURED) for row in rows]
    rows = [
        replace(row, error_true=1e-3) if row.cell.name == "ours continuous" and row.rtol == 1e-2 else row
        for row in rows
    ]
    for dtype, unit in (("float32", 1e-7), ("float64", 1e-16)):
        for steps in (10, 100):
            fixed = {"rtol": None, "atol": None, "steps": steps, "method": "euler", "dtype": dtype}
            pairs = [("ours", "symplectic"), ("ours-compensated", "symplectic")]
            found = group(pairs, **fixed)
            rows += [replace(row, error_discrete=unit * steps**0.5, **UNMEASURED) for row in found]
    return rows


def an_environment(**changes: Any) -> Environment:
    environment = Environment(
        system="Linux x86_64",
        cpu="Some CPU",
        cpu_kind="Some AVX2",
        cores=2,
        memory_gib=8,
        gpus=[],
        thread_variables={},
        python="3.11.7",
        torch="2.13.0",
        torch_build="cpu",
        torchdiffeq="0.2.5",
        numpy="2.4.6",
        peers={},
        library_sha256="1" * 64,
        suite_sha256="2" * 64,
        commit="0123456789ab",
        uncommitted_changes=False,
    )
    return replace(environment, **changes)
