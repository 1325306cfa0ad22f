"""The ledger's file: opening, creating, checking it, and saying in our words what SQLite says in its own.

One rule: a file that is damaged, newer than this release, or not a ledger is left byte for byte as it was found.

WAL with `synchronous=FULL`: a commit is one append to the log and one fsync; several processes may share the
file. Checked at open: the file system, the file's header, its version, SQLite's own check of structure and indexes
up to `CHECKED_BYTES` (beyond that it would make opening slow; `doctor` runs it in full). Checked at every read of a
row of evidence or contents: its hash.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runtime import actions, approval_state, metering
from runtime.canonical import new_id
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEDGER_VERSION: Final = 3
"""Version of the tables below; moves on its own, apart from `trace.SCHEMA_VERSION`. 2: `sessions.owner`. 3: states of
actions, meters, approvals."""

BUSY_SECONDS: Final = 10.0
"""How long a writer waits for another process to commit before it gives up with `CommitConflict`."""

CHECKED_BYTES: Final = 32 << 20
"""Largest file whose structure is checked at open (about 0.1 s)."""

LOG_PAGES: Final = 4096
"""The log is moved into the file when it has grown to so many pages (16 MiB), by whoever commits then (some 5 ms):
rarely enough to leave the 99th percentile alone. A log that readers or bulk writes made four times longer is cut."""

MOUNTS = Path("/proc/self/mountinfo")
"""Where Linux says what is mounted; missing elsewhere."""

_NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "ceph",
        "coda",
        "lustre",
        "gpfs",
        "beegfs",
        "pvfs2",
        "ocfs2",
    }
    | {
        "gfs2",
        "glusterfs",
        "sshfs",
        "s3fs",
        "gcsfuse",
        "rclone",
        "mergerfs",
        "davfs",
        "curlftpfs",
        "goofys",
        "juicefs",
    }
)
"""File systems that several machines may share: shared memory and locks do not reach the others."""

_SMALLEST: Final = 512
"""Bytes of the smallest database that SQLite writes."""
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
  hash TEXT, UNIQUE (tbl, key));
CREATE INDEX IF NOT EXISTS contents_in_order ON contents (tbl, sequence);

-- State; more of it is in `_STATE`.
CREATE TABLE IF NOT EXISTS claims (
  key_hash TEXT PRIMARY KEY, args_hash TEXT NOT NULL, decision_id TEXT NOT NULL, expires INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
  tenant TEXT NOT NULL, session_id TEXT NOT NULL, next_step INTEGER NOT NULL, calls INTEGER NOT NULL,
  owner TEXT, PRIMARY KEY (tenant, session_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires INTEGER NOT NULL)
  WITHOUT ROWID;
"""

_STATE: Final = (actions.TABLES, metering.TABLES, approval_state.TABLES)
"""Tables of the modules that own them."""


def open_ledger_file(path: Path, *, create: bool) -> str:
    """Make sure that a usable ledger is at `path`, of this release's version; return its id.

    Raises:
        LedgerCorrupt: the file is damaged or is not a ledger; nothing was written.
        LedgerTooNew: a newer release wrote it; nothing was written.
        LedgerError: there is none and `create` is false, or the disk refuses.
    """
    with translated(path, "open"):
        _require_local(path)
        _require_or_make_folder(path, create=create)
        if path.exists() and path.stat().st_size and (found := _inspect(path)):
            _patiently(lambda: _upgrade(path))
            return found
        if not create:
            raise LedgerError(
                f"no ledger at {str(path)!r}; give its file, or the folder of a lake it is kept in"
            )
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
            connection.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={4 * LOG_PAGES * 4096}")
    except BaseException:
        connection.close()
        raise
    return connection


def _require_wal(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise LedgerError(f"ledger {str(path)!r} needs a local disk: journal mode is {mode!r}, not 'wal'")


def _require_local(path: Path) -> None:
    """Refuse a network file system, where two machines would each believe to hold the only lock."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = MOUNTS.read_text().splitlines() if MOUNTS.exists() else []
    for mount in mounts:
        fields, _, source = mount.partition(" - ")
        kind = source.partition(" ")[0]
        if fields.split()[2] == number and kind.removeprefix("fuse.") in _NETWORK:
            raise LedgerError(
                f"ledger {str(path)!r} needs a local disk: {str(folder)!r} is on {kind}, where locks of other "
                "machines are not seen; keep the ledger on this machine, only the lake may be shared"
            )


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
    # Nobody but SQLite opens this file: closing any descriptor of it drops the POSIX locks that this process's other
    # connections hold, and another process would then delete the log under them. Below a page it would read as empty.
    if path.stat().st_size < _SMALLEST:
        _not_a_ledger(path)
    with contextlib.closing(connect(path, read_only=True)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return None
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name='meta'").fetchone()[0]:
            _not_a_ledger(path)
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        _check_version(path, meta.get("schema_version"))
        if path.stat().st_size <= CHECKED_BYTES:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
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
        _make_tables(connection, _SCHEMA, *_STATE)
        connection.executemany(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)",
            [("id", new_id()), ("schema_version", str(LEDGER_VERSION))],
        )
        connection.execute("COMMIT")
    _sync_folder(path.absolute().parent)


def _make_tables(connection: sqlite3.Connection, *texts: str) -> None:
    """Create what is missing, in the caller's transaction; `executescript` would commit it first."""
    for statement in (statement for text in texts for statement in text.split(";\n")):
        connection.execute(statement)


def _upgrade(path: Path) -> None:
    """Bring an older version to this one, in one transaction. Safe to race."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        if _version(connection) == LEDGER_VERSION:
            return
    with contextlib.closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _make_tables(connection, *_STATE)
        for table, column, kind in _ADDED:
            if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(LEDGER_VERSION),))
        connection.execute("COMMIT")


_ADDED: Final = (
    ("sessions", "owner", "TEXT"),
    ("actions", "state", "TEXT NOT NULL DEFAULT 'started'"),
    ("actions", "holder", "TEXT"),
    ("actions", "guards", "TEXT"),
    ("claims", "expires", "INTEGER"),
    ("contents", "hash", "TEXT"),
    ("actions", "handle", "TEXT"),
    ("actions", "moved", "INTEGER"),
)
"""Columns that tables of older versions lack; whole tables are created where they are missing."""


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
            if not is_busy(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


FOREIGN: Final = (sqlite3.Error, UnicodeDecodeError)
"""What Python's `sqlite3` raises; the second one for damaged names and messages."""

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DAMAGED: Final = ("decode to UTF-8", "no such column", "no such table", "malformed")
"""In messages without a code of their own: text or tables are not what this module wrote."""
_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "; the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "; the file or its folder is read-only",
    sqlite3.SQLITE_CANTOPEN: "; check that the folder exists and may be written",
    sqlite3.SQLITE_IOERR: "; the disk refused",
}


def _primary_code(exc: sqlite3.Error) -> int | None:
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether another connection has what this one needs: it will come free."""
    return _primary_code(exc) in _BUSY


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
    except (*FOREIGN, OSError) as exc:
        raise translate(exc, path, doing) from exc


def translate(exc: Exception, path: Path, doing: str) -> LedgerError:
    """Return our error for one of SQLite's or of the operating system."""
    message = f"cannot {doing} ledger {str(path)!r}: {exc}"
    code = _primary_code(exc) if isinstance(exc, sqlite3.Error) else None
    if code in _CORRUPT or isinstance(exc, UnicodeDecodeError) or any(map(str(exc).count, _DAMAGED)):
        return LedgerCorrupt(f"{message}; keep the file and restore a copy")
    if code in _BUSY:
        return CommitConflict(f"{message}: another process held it for {BUSY_SECONDS:g} s; safe to retry")
    return LedgerError(message + _ADVICE.get(code or 0, ""))
