"""Rows on disk: results/<suite>/<environment id>/rows.jsonl, append-only, and environment.json beside it."""

import errno
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from symplectic_bench.files.atomic import replace_text
from symplectic_bench.rows.environment import Environment
from symplectic_bench.rows.record import Measurement, UnreadableRow, fits
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

    def has(self, row: Measurement) -> bool:
        """Return whether the row's cell is finished, or has failed as often as the row says."""
        return self.is_finished(row.cell_id) or (
            row.status is Status.ERROR and self.attempts.get(row.cell_id, 0) >= row.attempt
        )

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

    known are the rows stored before, even if a fresh file is about to replace them; rows are those in the file now. If
    somebody removes, replaces or empties the file, it is written again with all rows; on_loss is told in a sentence.
    """

    def __init__(self, path: Path, known: Rows, rows: Rows, on_loss: Callable[[str], None]) -> None:
        self.known, self.rows = known, rows
        self._path, self._on_loss = path, on_loss
        self._locks = ExitStack()
        self._open()

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self._path.parent

    def append(self, row: Measurement) -> Measurement | None:
        """Write the row with the number of its cell's attempt, and return it as written.

        Returns None and writes nothing if the cell has a finished row: a row delivered twice counts once. A row with a
        higher attempt number, such as that of an abandoned cell, keeps it. Raises StoreError if the disk is full; the
        rows written before are intact.
        """
        self.restore()
        if self.rows.is_finished(row.cell_id):
            return None
        row = replace(row, attempt=max(row.attempt, self.rows.attempts.get(row.cell_id, 0) + 1))
        try:
            self._write(_line(row))
        except OSError as why:
            raise StoreError(
                f"a row could not be written ({why.strerror}); all rows before it are on disk, it is {_saved([row])}:"
                " make room, append it, and run the same command again, without --fresh"
            ) from why
        self.rows.add(row)
        return row

    def restore(self) -> None:
        """Go on in a new file with all rows, if the file is not at its place any more or has lost some."""
        if self._is_whole():
            return
        folder, rows = self.folder, self.rows.rows
        changed = f"{folder.parent.name}/{folder.name}/{self._path.name} was removed or changed during the run"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The lock may still be ours, or another run may write here too: lines are appended whole.
            with suppress(StoreError):
                self._locks.enter_context(_locked(folder))
            found = _rows_or_set_aside(self._path)
            self._file.close()
            self._open()
            lost = [row for row in rows if not found.has(row)]
            for row in lost:
                self._write(_line(row))
        except OSError as why:
            raise StoreError(
                f"{changed} and cannot be written again ({why.strerror}): its {len(rows)} rows are {_saved(rows)}:"
                " put them back, and run the same command again, without --fresh"
            ) from why
        for row in found.rows:
            self.rows.add(row)
        if lost or not found.rows:
            self._on_loss(f"{changed}: {len(lost)} rows are written again, to a new file there")

    def close(self) -> None:
        """Close the file and release the locks taken by `restore`."""
        self._file.close()
        self._locks.close()

    def _open(self) -> None:
        with self._path.open("a+b") as file:
            _end_truncated_line(file)
        self._file = self._path.open("ab", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size

    def _is_whole(self) -> bool:
        """Return whether the open file is the one at its path, and has all bytes that were written to it."""
        own = os.fstat(self._file.fileno())
        try:
            found = self._path.stat()
        except OSError:
            return False
        return os.path.samestat(own, found) and own.st_size >= self._size

    def _write(self, line: bytes) -> None:
        """Write a whole line, or nothing and raise OSError."""
        end = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(self._file.fileno(), end)  # leave no truncated line
            raise
        self._size = end + len(line)


def _line(row: Measurement) -> bytes:
    record = {key: anonymous(value) if isinstance(value, str) else value for key, value in row.to_json().items()}
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _rows_or_set_aside(path: Path) -> Rows:
    """Return the rows of a file that has taken the place of ours. If it has none, rename it, so as to write there."""
    try:
        return read_rows(path)
    except (UnreadableRow, IsADirectoryError):
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"))
        return Rows()


def _saved(rows: Sequence[Measurement]) -> str:
    """Write the rows to a temporary file and say where they are, or that they are lost."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="rows-", suffix=".jsonl")
        with open(descriptor, "wb") as file:
            file.writelines(_line(row) for row in rows)
    except OSError as why:
        return f"lost ({why.strerror})"
    return f"in {name}"


@contextmanager
def writing(
    folder: Path,
    fresh: bool = False,
    keep: Collection[str] = (),
    on_loss: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Writer]:
    """Open a Writer to folder/rows.jsonl, while holding the folder's lock.

    If fresh, write to a new file, which starts with the old rows of the cells in `keep` and replaces the old file when
    the block ends without an exception. on_loss: see Writer. Raises StoreError if another process is writing there,
    UnreadableRow if the old file is unreadable and needed.
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
        with closing(Writer(path, known, Rows() if fresh else known, on_loss)) as writer:
            for row in known.rows if fresh else ():
                if row.cell_id in keep:
                    writer.append(row)
            try:
                yield writer
            finally:
                writer.restore()
            if fresh:
                os.replace(path, target)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold folder/.lock, which names its holder. The operating system releases it when the process dies."""
    file, where = folder / ".lock", folder.as_posix()
    try:
        held = FileLock(file, blocking=False).acquire()
    except Timeout as why:
        who = file.read_text(encoding="utf-8", errors="replace").strip() or "an unknown process"
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
    """Return the contents of folder/environment.json. Raise StoreError if they are not those of an environment."""
    return _facts(folder / "environment.json", _FACTS)


_LATER = {f.name: fits(f.type) for f in fields(Environment) if f.name in ("peers", "problems", "cpu_kind")}
"""Facts that older files lack."""

_FACTS = {f.name: fits(f.type) for f in fields(Environment) if f.name not in _LATER}
_FACTS |= dict.fromkeys(("id", "scale", "last_run"), fits(str))


def _facts(file: Path, required: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """Return the JSON object in a file. Raise StoreError unless the required values are there and of their types."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError(f"{facts!r:.80} is no object")
        checks = dict(required) | {name: fits_type for name, fits_type in _LATER.items() if name in facts}
        for name, fits_type in checks.items():
            if not fits_type(facts.get(name)):
                raise ValueError(f"{name} is {facts.get(name)!r:.80}")
    except (ValueError, RecursionError) as why:  # also if it is not JSON or not UTF-8
        where = "/".join(file.parts[-3:])
        raise StoreError(f"{where} does not describe an environment ({why}): restore it or remove its folder") from why
    return facts


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
    required = {name: fits for name, fits in _FACTS.items() if name not in ("scale", "last_run")}
    return {"scale": own["scale"]} | _facts(file, required)


def write_cells(folder: Path, ids: Iterable[str]) -> None:
    """Write the ids of the suite's cells to folder/cells.txt, one per line. Rows may be fewer, or of an older suite."""
    replace_text(folder / "cells.txt", "".join(f"{id}\n" for id in ids))


def read_cells(folder: Path) -> list[str]:
    """Return the cell ids in folder/cells.txt. Raise StoreError if it is not text."""
    try:
        return (folder / "cells.txt").read_text(encoding="utf-8").split()
    except UnicodeDecodeError as why:
        raise StoreError(f"{folder.name}/cells.txt is not UTF-8: remove it, and run the suite again") from why


def environment_ids(suite_folder: Path) -> list[str]:
    """Return the ids of the environments that have rows, newest run first."""
    folders = [path.parent for path in suite_folder.glob("*/environment.json")]
    folders = [folder for folder in folders if (folder / "rows.jsonl").exists()]
    last_run = {f: _facts(f / "environment.json", {"last_run": fits(str)})["last_run"] for f in folders}
    return [folder.name for folder in sorted(folders, key=lambda f: last_run[f], reverse=True)]
