"""The ledger's file: opening, creating, checking it, and saying in our words what SQLite says in its own.

One rule: a file that is damaged, newer than this release, or not a ledger is left byte for byte as it was found.

WAL with `synchronous=FULL`: a commit is one append to the log and one fsync; several processes may share the
file. Checked at open: the file's header, its version, SQLite's own structure check up to `CHECKED_BYTES` (beyond
that it would make opening slow; `doctor` runs it in full). Checked at every read of a row: its hash.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from runtime.canonical import new_id
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEDGER_VERSION: Final = 2
"""Version of the tables below; moves on its own, apart from `trace.SCHEMA_VERSION`. 2: `sessions.owner`."""

BUSY_SECONDS: Final = 10.0
"""How long a writer waits for another process to commit before it gives up with `CommitConflict`."""

CHECKED_BYTES: Final = 32 << 20
"""Largest file whose structure is checked at open (about 0.1 s)."""

_MAGIC: Final = b"SQLite format 3\x00"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The chain: both tables share one sequence of positions. `row` is the preimage of `hash`.
CREATE TABLE IF NOT EXISTS decisions (
  position INTEGER PRIMARY KEY, decision_id TEXT NOT NULL, hash TEXT NOT NULL, row TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS decisions_by_id ON decisions (decision_id);
CREATE TABLE IF NOT EXISTS outcomes (
  position INTEGER PRIMARY KEY, decision_id TEXT, kind TEXT NOT NULL, hash TEXT NOT NULL, row TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS executions_by_decision ON outcomes (decision_id) WHERE kind = 'execution';

-- What decisions refer to. AUTOINCREMENT: a number is never given twice, even after pruning; gaps occur.
CREATE TABLE IF NOT EXISTS contents (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL,
  UNIQUE (tbl, key));
CREATE INDEX IF NOT EXISTS contents_in_order ON contents (tbl, sequence);

-- State. `actions` holds what was let run and has no outcome yet: small, whatever the history.
CREATE TABLE IF NOT EXISTS actions (decision_id TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
  key_hash TEXT PRIMARY KEY, args_hash TEXT NOT NULL, decision_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
  tenant TEXT NOT NULL, session_id TEXT NOT NULL, next_step INTEGER NOT NULL, calls INTEGER NOT NULL,
  owner TEXT, PRIMARY KEY (tenant, session_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires INTEGER NOT NULL)
  WITHOUT ROWID;
"""


def open_ledger_file(path: Path, *, create: bool) -> str:
    """Make sure that a usable ledger is at `path`, of this release's version; return its id.

    Raises:
        LedgerCorrupt: the file is damaged or is not a ledger; nothing was written.
        LedgerTooNew: a newer release wrote it; nothing was written.
        LedgerError: there is none and `create` is false, or the disk refuses.
    """
    with translated(path, "open"):
        _require_or_make_folder(path, create=create)
        if path.exists() and path.stat().st_size and (found := _inspect(path)):
            _patiently(lambda: _upgrade(path))
            return found
        if not create:
            raise LedgerError(f"no ledger at {str(path)!r}; check the path, or open it with create=True")
        _patiently(lambda: _create(path))
        return _inspect(path) or _not_a_ledger(path)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open one connection in autocommit mode; the caller serialises its use.

    Raises:
        sqlite3.Error: untranslated; LedgerError: if the file system cannot keep a write-ahead log.
    """
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
        cached_statements=256,
    )
    try:
        if not read_only:
            _require_wal(connection, path)
            connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _require_wal(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise LedgerError(f"ledger {str(path)!r} needs a local disk: journal mode is {mode!r}, not 'wal'")


def _require_or_make_folder(path: Path, *, create: bool) -> None:
    """Create the folders above the file; a name is durable only when the folder that holds it is synced."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    if missing and create:
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _inspect(path: Path) -> str | None:
    """Look at a file without writing; its id, or null if it is an empty database that nobody set up.

    A rollback journal beside it means that its creator died on the way to WAL: no row can be in it.
    """
    if path.with_name(path.name + "-journal").exists():
        return None
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            _not_a_ledger(path)
    with contextlib.closing(connect(path, read_only=True)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return None
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name='meta'").fetchone()[0]:
            _not_a_ledger(path)
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        _check_version(path, meta.get("schema_version"))
        if path.stat().st_size <= CHECKED_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise LedgerCorrupt(
                    f"ledger {str(path)!r} is damaged: {verdict}; keep the file and restore a copy"
                )
        return str(meta["id"]) if "id" in meta else _not_a_ledger(path)


def _check_version(path: Path, text: str | None) -> None:
    if text is None or not text.isdecimal():
        raise LedgerCorrupt(f"ledger {str(path)!r} has no readable schema version: {text!r}")
    if int(text) > LEDGER_VERSION:
        raise LedgerTooNew(
            f"ledger {str(path)!r} has schema version {text}, this redecide reads up to {LEDGER_VERSION}; "
            "upgrade redecide"
        )


def _not_a_ledger(path: Path) -> str:
    raise LedgerCorrupt(
        f"{str(path)!r} is not a ledger of redecide, or is damaged; nothing was written to it"
    )


def _create(path: Path) -> None:
    """Set the tables up. Safe to race: whoever comes second finds them."""
    with contextlib.closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        # executescript would commit first
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.executemany(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)",
            [("id", new_id()), ("schema_version", str(LEDGER_VERSION))],
        )
        connection.execute("COMMIT")
    _sync_folder(path.absolute().parent)


def _upgrade(path: Path) -> None:
    """Bring an older version to this one, in one transaction. Safe to race."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        if _version(connection) == LEDGER_VERSION:
            return
    with contextlib.closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 1:
            connection.execute("ALTER TABLE sessions ADD COLUMN owner TEXT")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(LEDGER_VERSION),))
        connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    (text,) = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    return int(text)


def _patiently(action: Callable[[], None]) -> None:
    """Run `action`; SQLite reports some races over a new file at once, without waiting its timeout."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as exc:
            if _primary_code(exc) not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "; the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "; the file or its folder is read-only",
    sqlite3.SQLITE_CANTOPEN: "; check that the folder exists and may be written",
    sqlite3.SQLITE_IOERR: "; the disk refused",
}


def _primary_code(exc: sqlite3.Error) -> int | None:
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def lost_acknowledgement(exc: sqlite3.Error) -> bool:
    """Whether a failed COMMIT may nevertheless be found in the file later: its bytes were out, the sync was not."""
    return _primary_code(exc) == sqlite3.SQLITE_IOERR


@contextlib.contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """Raise `LedgerError` and its kinds for what SQLite and the operating system raise in the block."""
    try:
        yield
    except LedgerError:
        raise
    except (sqlite3.Error, OSError) as exc:
        raise translate(exc, path, doing) from exc


def translate(exc: Exception, path: Path, doing: str) -> LedgerError:
    """Return our error for one of SQLite's or of the operating system."""
    message = f"cannot {doing} ledger {str(path)!r}: {exc}"
    code = _primary_code(exc) if isinstance(exc, sqlite3.Error) else None
    if code in _CORRUPT:
        return LedgerCorrupt(f"{message}; keep the file and restore a copy")
    if code in _BUSY:
        return CommitConflict(f"{message}: another process held it for {BUSY_SECONDS:g} s; safe to retry")
    return LedgerError(message + _ADVICE.get(code or 0, ""))
