"""The order of the gradients by peak memory: predicted by their formulas, and measured."""

import pandas as pd

from symplectic_bench.analysis.summary import Line, lines_of
from symplectic_bench.contenders.gradient_records import Symbols, gradient_record
from symplectic_bench.spec.status import Status

ORDERED = ("symplectic", "aca", "baseline")
"""The gradients that the paper orders."""

CHEAP_GRAPH = 4
"""The size of a graph, in states, from which symplectic < aca < baseline is claimed; below it, the states decide."""


def memory_order(frame: pd.DataFrame) -> list[Line]:
    """Return one line per group: the peaks of symplectic, aca and baseline, predicted by their formulas and measured.

    With D bytes of a state, A of the graph of one f, N steps and s stages: symplectic (N + s) D + A,
    aca N D + s A, baseline D + N s A (Matsubara et al. 2021, Table 1, in bytes). `held` says whether the two
    orders agree, and is None if one of the three gradients was not measured.
    """
    cells = [line for line in lines_of(frame) if line["contender"] == "ours" and line["gradient"] in ORDERED]
    groups = dict.fromkeys(line["group_id"] for line in cells)
    return [_line({c["gradient"]: c for c in cells if c["group_id"] == group}) for group in groups]


def _line(cells: dict[str, Line]) -> Line:
    group = next(iter(cells.values()))["group"]
    statuses = {name: str(cells[name]["status"]) if name in cells else "not measured" for name in ORDERED}
    failed = ", ".join(f"{name} {status}" for name, status in statuses.items() if status != Status.OK)
    if failed:
        return {"group": group, "held": None, "reason": failed}
    measured: Line = {name: cells[name]["peak_tensor_bytes"] for name in ORDERED}
    of_formulas = ("state_bytes", "graph_bytes", "steps_accepted", "stages")
    numbers = [cells["symplectic"][key] for key in of_formulas]
    if None in (*numbers, *measured.values()):
        return {"group": group, "held": None, "reason": "a number that the formulas need was not measured"}
    D, A, N, s = (int(number) for number in numbers)
    predicted = {name: _predicted_bytes(name, D, A, N, s) for name in ORDERED}
    orders = [" < ".join(sorted(ORDERED, key=lambda name: peaks[name])) for peaks in (predicted, measured)]
    line = {"group": group, "state_bytes": D, "graph_bytes": A, "steps_accepted": N, "stages": s}
    line |= {"graph_of_4_states": A >= CHEAP_GRAPH * D}
    line |= {f"predicted_{name}_bytes": predicted[name] for name in ORDERED}
    line |= {f"measured_{name}_bytes": measured[name] for name in ORDERED}
    line |= {"predicted_order": orders[0], "measured_order": orders[1]}
    return line | {"held": orders[0] == orders[1], "reason": None}


def _predicted_bytes(gradient: str, D: int, A: int, N: int, s: int) -> int:
    """Return the paper's prediction, the gradient's formula with V = A and P = 0, terms that the paper neglects."""
    memory = gradient_record(gradient).memory
    assert memory is not None, "the gradients that are ordered have formulas"
    return memory(Symbols(N, s, D=D, A=A, V=A))
