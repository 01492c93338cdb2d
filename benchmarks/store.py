"""Rows on disk: results/<suite>/<environment id>/rows.jsonl, append-only, and environment.json beside it."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from benchmarks.cell import Cell
from benchmarks.environment import Environment
from benchmarks.record import Measurement, Status

MAX_ATTEMPTS = 3


class StoreError(RuntimeError):
    """Rows that cannot be read or written as asked."""


@dataclass(frozen=True)
class Rows:
    """One row a cell, in the order of their first lines, and sentences on what is wrong with the file."""

    rows: list[Measurement]
    attempts: dict[str, int]  # cell id -> how often it ended with status error
    warnings: list[str]

    @property
    def finished(self) -> set[str]:
        """The ids of the cells that are not measured again."""
        return {row.cell_id for row in self.rows if row.status is not Status.ERROR}

    def to_do(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that have no finished row and have not failed MAX_ATTEMPTS times."""
        finished = self.finished
        return [c for c in cells if c.id not in finished and self.attempts.get(c.id, 0) < MAX_ATTEMPTS]


def read_rows(path: Path) -> Rows:
    """The rows of a file; none where there is no file.

    A line that is not JSON was torn by a crash: its cell counts as not measured. Of a cell, the first
    finished row counts, else its last error. Raises UnreadableRow for rows of a newer version.
    """
    chosen: dict[str, Measurement] = {}
    attempts: dict[str, int] = {}
    warnings: list[str] = []
    for number, line in _lines(path):
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, or not UTF-8
            warnings.append(f"{path.name} line {number} is torn (a run was killed while writing it); it is left out")
            continue
        row = Measurement.from_json(parsed)
        earlier = chosen.get(row.cell_id)
        if row.status is Status.ERROR:
            attempts[row.cell_id] = max(row.attempt, attempts.get(row.cell_id, 0) + 1)
        if earlier is None or earlier.status is Status.ERROR:
            chosen[row.cell_id] = row
        elif row.status is not Status.ERROR:
            warnings.append(f"{path.name} line {number}: cell {row.cell_id} was already finished; the first row counts")
    return Rows(list(chosen.values()), attempts, warnings)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """One at a time: the rows of a large sweep take several times the memory as text."""
    if path.exists():
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


class Writer:
    """Appends rows, each on disk before append returns. Made by `writing`."""

    def __init__(self, file: IO[bytes], known: Rows) -> None:
        self._file = file
        self._attempts = dict(known.attempts)
        self._finished = known.finished

    def append(self, row: Measurement) -> Measurement | None:
        """Writes the row, numbered among its cell's attempts, and returns it as written.

        Returns None, and writes nothing, where the cell has a finished row: what was delivered twice counts once. A
        row that says itself to be a later attempt, such as a cell's that is given up, keeps its number. Raises
        StoreError where the disk takes no more; what was written before is whole.
        """
        if row.cell_id in self._finished:
            return None
        row = replace(row, attempt=max(row.attempt, self._attempts.get(row.cell_id, 0) + 1))
        record = {key: anonymous(value) if isinstance(value, str) else value for key, value in row.to_json().items()}
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")
        if row.status is Status.ERROR:
            self._attempts[row.cell_id] = row.attempt
        else:
            self._finished.add(row.cell_id)
        return row

    def _write(self, line: bytes) -> None:
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as why:
            with contextlib.suppress(OSError):
                os.truncate(self._file.fileno(), end)  # no torn line for what comes next
            raise StoreError(
                f"a row could not be written ({why.strerror}); all rows before it are on disk: make room and run the"
                " same command again"
            ) from why


@contextmanager
def writing(folder: Path, fresh: bool = False, keep: Sequence[Measurement] = ()) -> Iterator[Writer]:
    """A Writer to folder/rows.jsonl.

    fresh: it writes to a new file, begun with the rows in `keep`, that takes the old one's place when the
    block ends without an exception. Raises StoreError where another process is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, target = folder / ("rows.fresh.jsonl" if fresh else "rows.jsonl"), folder / "rows.jsonl"
    with _locked(folder):
        if fresh:
            path.unlink(missing_ok=True)
        known = read_rows(path)
        with path.open("a+b") as file:
            _end_torn_line(file)
        with path.open("ab", buffering=0) as file:
            writer = Writer(file, known)
            for row in keep if fresh else ():
                writer.append(row)
            yield writer
        if fresh:
            os.replace(path, target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds folder/.lock, which says who does; the system lets go of it when the process dies."""
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as why:
            lock.seek(0)
            where, who = f"{folder.parent.name}/{folder.name}", lock.read().strip() or "of which nothing is known"
            raise StoreError(f"another run is writing to {where}; wait for it ({who}) or use --results") from why
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
        lock.flush()
        yield


def _end_torn_line(raw: IO[bytes]) -> None:
    """A file without a last newline lost the end of its last row; what comes next starts its own line."""
    if raw.seek(0, os.SEEK_END) == 0:
        return
    raw.seek(-1, os.SEEK_END)
    if raw.read(1) != b"\n":
        raw.write(b"\n")


_PATH = re.compile(r"(?<![\w.:/~-])~?/(?:[^\s/'\":,;()\[\]]+/)+([^\s/'\":,;()\[\]]*)")


def anonymous(text: str) -> str:
    """The text without host name and without folders: of an absolute path only the last part is left.

    Rows are committed and published, and an error's message may name where it happened.
    """
    host = re.escape(socket.gethostname())
    text = re.sub(rf"(?<![\w.-]){host}(?![\w-])", "<host>", text)
    return _PATH.sub(lambda match: f"<folder>/{match[1]}", text)


# environment.json says when the last run there began, since a checkout does not keep the dates of files.


def write_environment(folder: Path, environment: Environment, scale: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "id": environment.id,
        "scale": scale,
        "last_run": datetime.now(UTC).isoformat("T", "seconds"),
    }
    text = json.dumps(facts | asdict(environment), indent=2) + "\n"
    temporary = folder / "environment.json.new"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / "environment.json")


def read_environment(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def write_machine(folder: Path, environment: Environment) -> None:
    """folder/machines/<id>.json: what some of the rows were measured on, where that is not what the folder is of."""
    if folder.name == environment.id:
        return
    path = folder / "machines" / f"{environment.id}.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"id": environment.id} | asdict(environment), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_machine(folder: Path, id: str) -> dict[str, Any]:
    """Facts on a row's environment, that of the folder or another machine's; with the scale of the folder's run."""
    own = read_environment(folder)
    if id == own["id"]:
        return own
    return {"scale": own["scale"]} | json.loads((folder / "machines" / f"{id}.json").read_text(encoding="utf-8"))


def write_cells(folder: Path, ids: Iterable[str]) -> None:
    """folder/cells.txt: the cells that the suite has, a line each. Rows may be fewer, or those of an earlier suite."""
    temporary = folder / "cells.txt.new"
    temporary.write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")
    os.replace(temporary, folder / "cells.txt")


def read_cells(folder: Path) -> list[str]:
    return (folder / "cells.txt").read_text(encoding="utf-8").split()


def environment_ids(suite_folder: Path) -> list[str]:
    """The environments that have rows, the newest first."""
    folders = [path.parent for path in suite_folder.glob("*/environment.json")]
    folders = [folder for folder in folders if (folder / "rows.jsonl").exists()]
    return [f.name for f in sorted(folders, key=lambda f: read_environment(f)["last_run"], reverse=True)]
