"""The folder of a job's state: one job at a time, files whole or not at all, and an SQLite file that says what holds.

One rule: a row is committed after everything it names is on disk; so whatever dies when, what the rows say is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench.durably import sync
from workbench.errors import JobStateError
from workbench.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

FILE: Final = "state.db"
LOCK: Final = "lock"
VERSION: Final = 1
BUSY_SECONDS: Final = 10.0
CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Size up to which the whole file is looked through when it is opened."""

_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
  run INTEGER PRIMARY KEY, job TEXT NOT NULL, started TEXT NOT NULL, phase TEXT NOT NULL,
  again INTEGER NOT NULL DEFAULT 0, came_to TEXT
);
CREATE TABLE looks (
  series TEXT NOT NULL, night INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs, place INTEGER NOT NULL,
  about TEXT NOT NULL, range TEXT NOT NULL, since TEXT, until TEXT, result TEXT, sums TEXT, digest TEXT,
  PRIMARY KEY (series, night)
) WITHOUT ROWID;
CREATE INDEX looks_of_run ON looks (run);
CREATE TABLE notes (
  run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (run, name)
) WITHOUT ROWID
"""


class Lock:
    """The one job at work on a folder, until it is released or its process ends."""

    def __init__(self, folder: Path) -> None:
        """Take it.

        Raises:
            JobStateError: another job has it; says who. Or the folder cannot be written.
        """
        path = folder / LOCK
        with refused(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with refused(folder):
                self._take(path)
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BaseException:
            os.close(self._handle)
            raise

    def _take(self, path: Path) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = visible(os.pread(self._handle, 200, 0).decode(errors="replace")) or "somebody"
            raise JobStateError(
                f"another job is at work on {visible(str(path.parent))}: {holder}; wait for it, or give this job a "
                "`state` folder of its own"
            ) from exc

    def release(self) -> None:
        """Let others in. The file stays: to remove it would let two in at once."""
        os.close(self._handle)


@contextlib.contextmanager
def refused(folder: Path) -> Iterator[None]:
    """Say which folder it was that the system, or SQLite, refused."""
    try:
        yield
    except JobStateError:
        raise
    except (OSError, sqlite3.Error, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise JobStateError(
            f"the job's state in {visible(str(folder))} cannot be used: {visible(why)}{_advice(exc)}"
        ) from exc


def _advice(exc: BaseException) -> str:
    code = getattr(exc, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return "; is the disk full? nothing was changed"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "; restore it from a copy, or move the folder away to begin anew"
        case _:
            return "; nothing was changed"


def opened(folder: Path) -> sqlite3.Connection:
    """Open the SQLite file of a folder that this process has locked; it is made if it is not there.

    Raises:
        JobStateError: it is damaged, no state of a job, of a newer redecide, or cannot be written.
    """
    path = folder / FILE
    with refused(folder):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _require_ours(connection, folder)
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            _require_wal(mode, folder)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            sync(folder)
        except BaseException:
            connection.close()
            raise
    return connection


def _require_wal(mode: str, folder: Path) -> None:
    if mode != "wal":
        raise JobStateError(f"{visible(str(folder))} needs a local disk: journal mode is {mode!r}, not 'wal'")


def read_only(folder: Path) -> sqlite3.Connection | None:
    """Open the SQLite file to look at, whoever works on it; None: there is none yet.

    Raises:
        JobStateError: it is damaged, no state of a job, or of a newer redecide.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with refused(folder):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", timeout=BUSY_SECONDS, isolation_level=None, uri=True
        )
        try:
            _require_version(connection, folder)
        except BaseException:
            connection.close()
            raise
    return connection


def _require_ours(connection: sqlite3.Connection, folder: Path) -> None:
    """Make the tables of a new file, and refuse what is none of ours, before anything is written."""
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(VERSION),))
        connection.execute("COMMIT")
        return
    _require_version(connection, folder)
    if (folder / FILE).stat().st_size <= CHECKED_BYTES:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JobStateError(
                f"the job's state in {visible(str(folder))} is damaged: {visible(str(verdict))}; restore it from a "
                "copy, or move the folder away to begin anew"
            )


def _require_version(connection: sqlite3.Connection, folder: Path) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    row = (
        connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
        if "meta" in tables
        else None
    )
    text = row[0] if row else ""
    if not (isinstance(text, str) and text.isdecimal()) or not {"runs", "looks", "notes"} <= tables:
        raise JobStateError(
            f"{visible(str(folder / FILE))} is no state of a job, or is damaged; nothing was written to it"
        )
    if int(text) > VERSION:
        raise JobStateError(
            f"a newer redecide wrote the job's state in {visible(str(folder))} (version {text}, this one reads "
            f"{VERSION}); upgrade redecide"
        )


def write_sums(folder: Path, stem: str, frame: pl.DataFrame) -> tuple[str, str]:
    """Write sums of sessions beside the SQLite file. Returns the file's name and digest.

    Durability: file and name are on disk when it returns; whole, or not there.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    target = folder / f"{stem}-{digest[:16]}.parquet"
    with refused(folder):
        handle, name = tempfile.mkstemp(dir=folder, prefix=".unfinished-")
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync(folder)
    return target.name, digest


def read_sums(folder: Path, name: str, digest: str) -> pl.DataFrame:
    """Return sums of sessions, as they were written.

    Raises:
        JobStateError: the file is gone or was changed.
    """
    import polars as pl  # noqa: PLC0415 - a look at what is kept needs none of it

    with refused(folder):
        content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise JobStateError(
            f"{visible(str(folder / name))} was changed since it was written: restore it from a copy, or move the "
            "folder away to begin anew"
        )
    return pl.read_parquet(io.BytesIO(content))


def sweep(folder: Path, named: set[str]) -> None:
    """Remove files that no row names: of a job that died before it committed, or that were replaced since."""
    with refused(folder):
        for path in [*folder.glob("sums-*.parquet"), *folder.glob(".unfinished-*")]:
            if path.name not in named:
                path.unlink(missing_ok=True)
