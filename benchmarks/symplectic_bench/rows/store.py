"""Rows on disk: results/<suite>/<environment id>/rows.jsonl, append-only, and environment.json beside it."""

import contextlib
import errno
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

from filelock import FileLock, Timeout

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement, UnreadableRow
from symplectic_bench.spec.cell import Cell
from symplectic_bench.spec.status import Status

MAX_ATTEMPTS = 3
"""The number of times a cell is measured in all if it keeps ending in an error, or its worker keeps dying."""


class StoreError(RuntimeError):
    """Rows cannot be read or written."""


@dataclass
class Rows:
    """One row per cell, in the order of their first lines, and warnings about faults in the file."""

    by_cell: dict[str, Measurement] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)  # cell id -> number of errors so far
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[Measurement]:
        return list(self.by_cell.values())

    def add(self, row: Measurement) -> bool:
        """Add a row. The first finished row of a cell counts, or its last error if none is finished.

        Returns False for a second finished row, which does not count.
        """
        if row.status is Status.ERROR:  # a duplicated line is one attempt
            self.attempts[row.cell_id] = max(row.attempt, self.attempts.get(row.cell_id, 0))
        if self.is_finished(row.cell_id):
            return row.status is Status.ERROR
        self.by_cell[row.cell_id] = row
        return True

    def is_finished(self, cell_id: str) -> bool:
        row = self.by_cell.get(cell_id)
        return row is not None and row.status is not Status.ERROR

    def to_do(self, cells: Iterable[Cell]) -> list[Cell]:
        """Return the cells that have no finished row and have not failed MAX_ATTEMPTS times."""
        return [c for c in cells if not self.is_finished(c.id) and self.attempts.get(c.id, 0) < MAX_ATTEMPTS]


def read_rows(path: Path) -> Rows:
    """Return the rows of a file, which may not exist.

    A line that is not JSON was truncated by a crash: its cell counts as not measured. Raises UnreadableRow, with the
    line number, for a line that is not a row or was written by a newer version.
    """
    known = Rows()
    for number, line in _lines(path):
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):  # not JSON, or not UTF-8
            known.warnings.append(
                f"{path.name} line {number} is truncated (a run was killed while writing it) and is ignored"
            )
            continue
        try:
            row = Measurement.from_json(parsed)
        except UnreadableRow as why:
            raise UnreadableRow(f"{path.as_posix()}, line {number}: {why}") from why
        if not known.add(row):
            known.warnings.append(
                f"{path.name} line {number}: cell {row.cell_id} was already finished; the first row counts"
            )
    return known


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines one at a time: the text of a large sweep takes several times the memory of its rows."""
    if path.exists():
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


class Writer:
    """Appends rows, each of which is on disk before append returns. Made by `writing`.

    known are the rows stored before, even if a fresh file is about to replace them; rows are those in the file now.
    """

    def __init__(self, file: IO[bytes], known: Rows, rows: Rows) -> None:
        self._file = file
        self.known, self.rows = known, rows

    def append(self, row: Measurement) -> Measurement | None:
        """Write the row with the number of its cell's attempt, and return it as written.

        Returns None and writes nothing if the cell has a finished row: a row delivered twice counts once. A row with a
        higher attempt number, such as that of an abandoned cell, keeps it. Raises StoreError if the disk is full; the
        rows written before are intact.
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
                os.truncate(self._file.fileno(), end)  # leave no truncated line
            raise StoreError(
                f"a row could not be written ({why.strerror}); all rows before it are on disk: make room and run the"
                " same command again, without --fresh"
            ) from why


@contextmanager
def writing(folder: Path, fresh: bool = False, keep: Collection[str] = ()) -> Iterator[Writer]:
    """Open a Writer to folder/rows.jsonl, while holding the folder's lock.

    If fresh, write to a new file, which starts with the old rows of the cells in `keep` and replaces the old file when
    the block ends without an exception. Raises StoreError if another process is writing there, UnreadableRow if the old
    file is unreadable and needed.
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
            _end_truncated_line(file)
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
    """Hold folder/.lock, which names its holder. The operating system releases it when the process dies."""
    file, where = folder / ".lock", folder.as_posix()
    try:
        held = FileLock(file, blocking=False).acquire()
    except Timeout as why:
        who = file.read_text(encoding="utf-8").strip() or "an unknown process"
        raise StoreError(f"another run is writing to {where}; wait for it ({who}) or use --results") from why
    with held:
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        file.write_text(f"{holder}\n", encoding="utf-8")
        yield


def _end_truncated_line(raw: IO[bytes]) -> None:
    """Append a newline if the last line lacks one, so that the next row does not join a truncated line."""
    if raw.seek(0, os.SEEK_END) == 0:
        return
    raw.seek(-1, os.SEEK_END)
    if raw.read(1) != b"\n":
        raw.write(b"\n")


_PATH = re.compile(r"(?<![\w.:/~-])~?/(?:[^\s/'\":,;()\[\]]+/)+([^\s/'\":,;()\[\]]*)")


def anonymous(text: str) -> str:
    """Return the text without the host name and with only the last part of absolute paths.

    Rows are committed and published, and an error message may contain both.
    """
    host = re.escape(socket.gethostname())
    text = re.sub(rf"(?<![\w.-]){host}(?![\w-])", "<host>", text)
    return _PATH.sub(lambda match: f"<folder>/{match[1]}", text)


def write_environment(folder: Path, environment: Environment, scale: str) -> None:
    """Write folder/environment.json with the time of this run: a checkout does not preserve the dates of files."""
    facts: dict[str, Any] = {
        "id": environment.id,
        "scale": scale,
        "last_run": datetime.now(UTC).isoformat("T", "seconds"),
    }
    text = json.dumps(facts | asdict(environment), indent=2) + "\n"
    replace_text(folder / "environment.json", text)


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the contents of folder/environment.json."""
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


def write_machine(folder: Path, environment: Environment) -> None:
    """Write folder/machines/<id>.json if the environment that measured rows is not the folder's own."""
    if folder.name == environment.id:
        return
    text = json.dumps({"id": environment.id} | asdict(environment), indent=2) + "\n"
    replace_text(folder / "machines" / f"{environment.id}.json", text)


def read_machine(folder: Path, id: str) -> dict[str, Any]:
    """Return the facts of the environment `id` (the folder's own or another machine's), with the scale of the run."""
    own = read_environment(folder)
    if id == own["id"]:
        return own
    file = folder / "machines" / f"{id}.json"
    if not file.is_file():
        raise StoreError(
            f"{folder.as_posix()}: a row has environment {id}, but machines/{id}.json is missing: restore it or use"
            " --fresh"
        )
    return {"scale": own["scale"]} | json.loads(file.read_text(encoding="utf-8"))


def write_cells(folder: Path, ids: Iterable[str]) -> None:
    """Write the ids of the suite's cells to folder/cells.txt, one per line. Rows may be fewer, or of an older suite."""
    replace_text(folder / "cells.txt", "".join(f"{id}\n" for id in ids))


def read_cells(folder: Path) -> list[str]:
    """Return the cell ids in folder/cells.txt."""
    return (folder / "cells.txt").read_text(encoding="utf-8").split()


def environment_ids(suite_folder: Path) -> list[str]:
    """Return the ids of the environments that have rows, newest run first."""
    folders = [path.parent for path in suite_folder.glob("*/environment.json")]
    folders = [folder for folder in folders if (folder / "rows.jsonl").exists()]
    return [f.name for f in sorted(folders, key=lambda f: read_environment(f)["last_run"], reverse=True)]
