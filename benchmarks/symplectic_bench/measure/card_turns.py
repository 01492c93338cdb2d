"""The process of gpu-report: it computes the gradients, and the bare calls below them, that it is asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from symplectic_adjoint import METHODS
from symplectic_bench.contenders.ours import OURS
from symplectic_bench.contenders.registry import CONTENDERS
from symplectic_bench.measure.floor import BareCalls
from symplectic_bench.measure.launches import launches, waits
from symplectic_bench.measure.tensor_memory import measure_tensor_memory
from symplectic_bench.measure.wall_time import garbage_collection_off, gradient_times, seconds
from symplectic_bench.problems import Problem, build
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.failure import diagnose

Kind = Literal["gradient", "calls", "captured calls"]

STEPS_PER_GRAPH = 50
"""The steps whose bare calls are captured in one graph, which is replayed for every further as many."""


@dataclass(frozen=True)
class Entrant:
    """The gradient of a cell, or its bare calls: (3 s - 1) a step of s stages, s of them with their VJP."""

    cell: Cell
    kind: Kind = "gradient"


def answer(questions: Connection, entrants: Sequence[Entrant], cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Answer questions (what, number of the entrant) with what Turn's method of that name returns.

    A failure is the answer {"status", "reason"}.
    """
    turns: dict[int, Turn] = {}
    problems: dict[str, Problem] = {}
    while True:
        what, number = questions.recv()
        entrant = entrants[number]
        try:
            if number not in turns:
                key = entrant.cell.problem_id
                problems[key] = problems.get(key) or build(entrant.cell, cache_dir)
                turns[number] = Turn(entrant, problems[key], cache_dir)
            found = getattr(turns[number], what)()
        except Exception as error:
            status, reason = diagnose(error)
            found = {"status": status.value, "reason": reason}
        yield found


class Turn:
    """One entrant. Entrants of one problem share it, but for bare calls, whose graphs must keep their tensors."""

    def __init__(self, entrant: Entrant, problem: Problem, cache_dir: Path) -> None:
        self.cell, self.kind, self.problem, self.cache_dir = entrant.cell, entrant.kind, problem, cache_dir
        self.calls: Callable[[], None] | None = None

    def prepare(self) -> dict[str, Any]:
        """Compute everything twice. Return {"first_s"}, and {"steps", "f_calls"} of the library's gradient."""
        counts = {} if CONTENDERS[self.cell.contender].name not in LIBRARY else self._counts()
        if self.kind != "gradient":
            self._prepare_calls(counts["steps"])
        first_s = self.time()["total_s"]
        self.time()
        return {"first_s": first_s, **counts}

    def time(self) -> dict[str, float]:
        """Return {"total_s"} of one gradient, or of all its bare calls."""
        if self.calls is None:
            return {"total_s": sum(value for name, value in self._gradient_times().items() if name in WALL_TIMES)}
        with garbage_collection_off():
            return {"total_s": seconds(self.calls, self.cell.device)}

    def memory(self) -> dict[str, Any]:
        """Return the values of measure_tensor_memory."""
        found: dict[str, Any] = {}
        for value in measure_tensor_memory(self.cell, self.cache_dir):
            found |= value
        return found

    def launched(self) -> dict[str, int]:
        """Return the waits and the launches of one gradient."""
        return waits(self._gradient) | launches(self._gradient)

    def _gradient_times(self) -> dict[str, float]:
        return gradient_times(self.problem, self.cell)

    def _gradient(self) -> None:
        self.problem.clear_gradients()
        CONTENDERS[self.cell.contender].gradient(self.problem, self.cell).complete()

    def _own_problem(self) -> Problem:
        return self.problem.to(self.problem.y0.dtype, self.problem.y0.device)

    def _counts(self) -> dict[str, int]:
        counts = OURS.observe(self._own_problem(), self.cell).counts
        steps, forward, backward = counts.steps_accepted, counts.f_calls_forward, counts.f_calls_backward
        assert steps is not None and forward is not None and backward is not None, "the library counts"
        return {"steps": steps, "f_calls": forward + backward}

    def _prepare_calls(self, steps: int) -> None:
        rounds = steps // STEPS_PER_GRAPH if steps % STEPS_PER_GRAPH == 0 else 1
        stages = METHODS[self.cell.method].stages
        part = steps // rounds
        calls = BareCalls(self._own_problem(), f_calls=part * (2 * stages - 1), vjps=part * stages)
        calls.__enter__()  # for good: a graph writes to the gradients that it makes
        once = calls.captured() if self.kind == "captured calls" else calls

        def every() -> None:
            for _ in range(rounds):
                once()

        self.calls = every


LIBRARY = ("ours", "ours-captured", "ours-captured-compiled")
"""The contenders whose steps and calls are those that the library counts."""

WALL_TIMES = ("forward_s", "backward_s", "total_s")
"""The fields of gradient_times that add up to the time of a gradient."""
