"""The measurement of gpu-report: the entrants of a row take turns, A B C, B C A, .., those in torch in one process.

JAX has a process of its own, in which it compiles while torch's memory and launches are measured. Only one of the two
processes computes while times are taken.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symplectic_bench.contenders.registry import CONTENDERS, decline, missing
from symplectic_bench.measure.card_turns import Entrant, answer
from symplectic_bench.run.card_rows import CAPTURED, EAGER, TORCHDIFFEQ, CardRow
from symplectic_bench.run.processes import Conversation, Limits, conversation
from symplectic_bench.spec.status import Status

FEWEST_ROUNDS, MOST_ROUNDS = 5, 21
ROW_S = 6.0
"""The time after which a row that has FEWEST_ROUNDS gets no more."""

COUNTED = (CAPTURED, EAGER, "ours backprop", TORCHDIFFEQ)
"""The entrants whose waits and launches are counted: profiling 15,000 launches takes seconds."""

ANSWER_S = 90.0
COMPILE_S = 300.0
"""Time limits of an answer: of torch, and of JAX, which compiles."""


@dataclass
class Result:
    """What is known of one entrant of a row.

    samples_s has one time a round; parts are the questions that were answered.
    """

    row: str
    name: str
    entrant: Entrant
    status: str = Status.OK.value
    reason: str | None = None
    samples_s: list[float] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        return self.status == Status.OK.value

    @property
    def in_jax(self) -> bool:
        return CONTENDERS[self.entrant.cell.contender].framework == "jax"

    @property
    def median_s(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples_s)

    def take(self, found: dict[str, Any] | None, talk: Conversation) -> None:
        """Take an answer, or the end of its process."""
        if found is None:
            found = {"status": talk.outcome.status.value, "reason": talk.outcome.reason}
        self.status, self.reason = found.get("status", self.status), found.get("reason", self.reason)
        if "total_s" in found:
            self.samples_s.append(found["total_s"])
        self.measured |= {k: v for k, v in found.items() if k not in ("status", "reason", "total_s")}


def measure_rows(
    rows: Sequence[CardRow], cache_dir: Path, on_progress: Callable[[str], None]
) -> Iterator[list[Result]]:
    """Measure the rows, and yield the results of each, entrants that cannot run here among them."""
    results = {row.name: [Result(row.name, name, one) for name, one in row.entrants().items()] for row in rows}
    everyone = [one for row in rows for one in results[row.name]]
    for one in everyone:
        if reason := decline(one.entrant.cell) or missing(one.entrant.cell):
            one.status, one.reason = Status.SKIPPED.value, reason
    in_jax = [one for one in everyone if one.in_jax and one.ok]
    with contextlib.ExitStack() as stack:
        jax, limits = None, Limits(COMPILE_S, spawned=True)
        if in_jax:
            jax = stack.enter_context(conversation(answer, ([one.entrant for one in in_jax], cache_dir), limits))
        for row in rows:
            turns = [(one, jax, i) for i, one in enumerate(in_jax) if jax is not None and one.row == row.name]
            yield _measure_row(row, results[row.name], turns, cache_dir, on_progress)


Turns = list[tuple[Result, Conversation, int]]
"""Entrants, each with its process and its number there."""


def _measure_row(
    row: CardRow, results: list[Result], in_jax: Turns, cache_dir: Path, on_progress: Callable[[str], None]
) -> list[Result]:
    """Measure a row. If an entrant in torch fails, the others begin again without it, in a process that it left alone.

    A failed capture or launch can make every later call of its process fail.
    """
    while in_torch := [one for one in results if one.ok and not one.in_jax]:
        in_jax = [turn for turn in in_jax if turn[0].ok]
        for one in (*in_torch, *(one for one, _, _ in in_jax)):
            one.samples_s = []
        for _, jax, i in in_jax:
            jax.put(("prepare", i))  # while torch is busy with the rest
        with conversation(answer, ([one.entrant for one in in_torch], cache_dir), Limits(ANSWER_S)) as torch:
            prepared = _prepare(row, in_torch, torch, on_progress)
            for one, jax, _ in in_jax:
                one.take(jax.take(), jax)
            if prepared:
                on_progress(f"{row.name}: times")
                _take_turns([*((one, torch, i) for i, one in enumerate(in_torch)), *in_jax])
        if all(one.ok for one in in_torch):
            break
    return results


def _prepare(row: CardRow, results: Sequence[Result], torch: Conversation, on_progress: Callable[[str], None]) -> bool:
    """Prepare all entrants, and measure what no earlier process has. Return False as soon as one fails."""
    for i, one in enumerate(results):
        parts = ["prepare"]
        if row.thorough and one.entrant.kind == "gradient":
            parts = ["memory", "prepare", *(["launched"] if one.name in COUNTED else [])]
        for part in parts:
            if part == "prepare" or part not in one.parts:
                on_progress(f"{row.name}: {one.name}, {part}")
                one.take(torch.ask((part, i)), torch)
                one.parts.add(part)
            if not one.ok:
                return False
    return True


def _take_turns(turns: Turns) -> None:
    """Time the entrants round by round, until one in torch fails. One in JAX that fails leaves the others alone."""
    start = time.monotonic()
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.monotonic() - start > ROW_S:
            return
        here = [turn for turn in turns if turn[0].ok]
        first = number % max(1, len(here))
        for one, talk, i in (*here[first:], *here[:first]):
            one.take(talk.ask(("time", i)), talk)
            if not (one.ok or one.in_jax):
                return
