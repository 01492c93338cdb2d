"""What a run would measure, and how long that took the last time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.store import environment_ids, read_rows
from symplectic_bench.run.sweep import Plan
from symplectic_bench.spec.cell import Cell, group_cells


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan, whether it is still to be measured, and the seconds that it took last; None if unknown."""

    cell: Cell
    to_do: bool
    last_s: float | None


def preview(plan: Plan, environment: Environment, results: Path) -> list[PlannedCell]:
    """Return the plan's cells. Raise StoreError or UnreadableRow if rows that are there cannot be read."""
    suite_folder = results / plan.suite.name
    here = suite_folder / environment.with_problems(plan.problems).id
    to_do = plan.cells if plan.fresh else read_rows(here / "rows.jsonl").to_do(plan.cells)
    took, ids = last_times(suite_folder), {cell.id for cell in to_do}
    return [PlannedCell(cell, cell.id in ids, took.get(cell.id)) for cell in plan.cells]


def last_times(suite_folder: Path) -> dict[str, float]:
    """Return the seconds that each cell took when it was last measured, in whichever environment."""
    took: dict[str, float] = {}
    for id in reversed(environment_ids(suite_folder)):
        for row in read_rows(suite_folder / id / "rows.jsonl").rows:
            if row.measuring_s is not None:
                took[row.cell_id] = row.measuring_s
    return took


def preview_lines(cells: Sequence[PlannedCell]) -> Iterator[str]:
    """Yield a line for each group with a cell to measure, and one for all of them."""
    by_id = {planned.cell.id: planned for planned in cells if planned.to_do}
    for group in group_cells([planned.cell for planned in by_id.values()]):
        names = ", ".join(cell.name for cell in group)
        yield f"{_seconds([by_id[cell.id] for cell in group]):>8}  {group[0].group_label}: {names}"
    known = sum(planned.last_s is not None for planned in by_id.values())
    remark = f", of the {known} that have been measured before" if 0 < known < len(by_id) else ""
    yield f"{_seconds(list(by_id.values())):>8}  last time{remark}" if known else "no time is known from an earlier run"


def _seconds(cells: Sequence[PlannedCell]) -> str:
    known = [planned.last_s for planned in cells if planned.last_s is not None]
    return f"{sum(known):.1f} s" if known else "?"
