"""Rows on disk: results/<suite>/<environment id>/rows.jsonl, append-only, and environment.json beside it."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement, UnreadableRow
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status

MAX_ATTEMPTS = 3


class StoreError(RuntimeError):
    """Rows that cannot be read or written as asked."""


@dataclass
class Rows:
    """One row a cell, in the order of their first lines, and sentences on what is wrong with the file."""

    by_cell: dict[str, Measurement] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)  # cell id -> how often it ended with status error
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Measurement]:
        return list(self.by_cell.values())

    def add(self, row: Measurement) -> bool:
        """Of a cell, the first finished row counts, else its last error. False for one after a finished one."""
        if row.status is Status.ERROR:  # one that is there twice is one attempt
            self.attempts[row.cell_id] = max(row.attempt, self.attempts.get(row.cell_id, 0))
        if self.is_finished(row.cell_id):
            return row.status is Status.ERROR
        self.by_cell[row.cell_id] = row
        return True

    def is_finished(self, cell_id: str) -> bool:
        row = self.by_cell.get(cell_id)
        return row is not None and row.status is not Status.ERROR

    def to_do(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells that have no finished row and have not failed MAX_ATTEMPTS times."""
        return [c for c in cells if not self.is_finished(c.id) and self.attempts.get(c.id, 0) < MAX_ATTEMPTS]


def read_rows(path: Path) -> Rows:
    """The rows of a file; none where there is no file.

    A line that is not JSON was torn by a crash: its cell counts as not measured. Raises UnreadableRow, with its place,
    for what is no row, or one of a newer version.
    """
    known = Rows()
    for number, line in _lines(path):
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, or not UTF-8
            known.warnings.append(
                f"{path.name} line {number} is torn (a run was killed while writing it); it is left out"
            )
            continue
        try:
            row = Measurement.from_json(parsed)
        except UnreadableRow as why:
            raise UnreadableRow(f"{path.parent.name}/{path.name}, line {number}: {why}") from why
        if not known.add(row):
            known.warnings.append(
                f"{path.name} line {number}: cell {row.cell_id} was already finished; the first row counts"
            )
    return known


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """One at a time: the rows of a large sweep take several times the memory as text."""
    if path.exists():
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


class Writer:
    """Appends rows, each on disk before append returns. Made by `writing`.

    known: the rows that were there before, of the file that a fresh one is to replace too; rows: those that there are
    now.
    """

    def __init__(self, file: IO[bytes], known: Rows, rows: Rows) -> None:
        self._file = file
        self.known, self.rows = known, rows

    def append(self, row: Measurement) -> Measurement | None:
        """Writes the row, numbered among its cell's attempts, and returns it as written.

        Returns None, and writes nothing, where the cell has a finished row: what was delivered twice counts once. A
        row that says itself to be a later attempt, such as a cell's that is given up, keeps its number. Raises
        StoreError where the disk takes no more; what was written before is whole.
        """
        if self.rows.is_finished(row.cell_id):
            return None
        row = replace(row, attempt=max(row.attempt, self.rows.attempts.get(row.cell_id, 0) + 1))
        record = {key: anonymous(value) if isinstance(value, str) else value for key, value in row.to_json().items()}
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self.rows.add(row)
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
                " same command again (--fresh would begin anew)"
            ) from why


@contextmanager
def writing(folder: Path, fresh: bool = False, keep: Collection[str] = ()) -> Iterator[Writer]:
    """A Writer to folder/rows.jsonl.

    fresh: it writes to a new file, begun with the old one's rows of the cells in `keep`, that takes its place when the
    block ends without an exception. Raises StoreError where another process is writing there, UnreadableRow for an
    old file that is to go on, or of which something is to be kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "rows.jsonl"
    path = folder / "rows.fresh.jsonl" if fresh else target
    with _locked(folder):
        try:
            known = read_rows(target)
        except UnreadableRow:
            if not fresh or keep:
                raise
            known = Rows()
        if fresh:
            path.unlink(missing_ok=True)
        with path.open("a+b") as file:
            _end_torn_line(file)
        with path.open("ab", buffering=0) as file:
            writer = Writer(file, known, Rows() if fresh else known)
            for row in known.rows if fresh else ():
                if row.cell_id in keep:
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
    facts: dict[str, Any] = {
        "id": environment.id,
        "scale": scale,
        "last_run": datetime.now(UTC).isoformat("T", "seconds"),
    }
    text = json.dumps(facts | asdict(environment), indent=2) + "\n"
    replace_text(folder / "environment.json", text)


def read_environment(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def write_machine(folder: Path, environment: Environment) -> None:
    """folder/machines/<id>.json: what some of the rows were measured on, where that is not what the folder is of."""
    if folder.name == environment.id:
        return
    text = json.dumps({"id": environment.id} | asdict(environment), indent=2) + "\n"
    replace_text(folder / "machines" / f"{environment.id}.json", text)


def read_machine(folder: Path, id: str) -> dict[str, Any]:
    """Facts on a row's environment, that of the folder or another machine's; with the scale of the folder's run."""
    own = read_environment(folder)
    if id == own["id"]:
        return own
    file = folder / "machines" / f"{id}.json"
    if not file.is_file():
        raise StoreError(f"{folder.name}: a row is of environment {id}, on which there is no machines/{id}.json")
    return {"scale": own["scale"]} | json.loads(file.read_text(encoding="utf-8"))


def write_cells(folder: Path, ids: Iterable[str]) -> None:
    """folder/cells.txt: the cells that the suite has, a line each. Rows may be fewer, or those of an earlier suite."""
    replace_text(folder / "cells.txt", "".join(f"{id}\n" for id in ids))


def read_cells(folder: Path) -> list[str]:
    return (folder / "cells.txt").read_text(encoding="utf-8").split()


def environment_ids(suite_folder: Path) -> list[str]:
    """The environments that have rows, the newest first."""
    folders = [path.parent for path in suite_folder.glob("*/environment.json")]
    folders = [folder for folder in folders if (folder / "rows.jsonl").exists()]
    return [f.name for f in sorted(folders, key=lambda f: read_environment(f)["last_run"], reverse=True)]
