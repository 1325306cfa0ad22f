"""What the disk alone takes: bare SQLite commits, and how many of them a call makes.

One rule: commits are counted in the file, not taken from a document: each leaves a commit frame in the write-ahead
log (SQLite's file format, section 4.1: a frame whose `size after commit` is not zero).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW_BYTES: Final = 1_600
"""Text of a bare row: about what a decision's takes."""
LINE_BYTES: Final = 300
"""A bare line: about what an entry of the toolkit's audit log takes."""
_HEADER: Final = 32
_FRAME: Final = 24


class BareLedger:
    """A table of texts with an integer key, WAL and `synchronous=FULL`: the least that is durable in SQLite."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE rows (position INTEGER PRIMARY KEY, row TEXT NOT NULL)")
        self._text = "x" * ROW_BYTES

    def commit(self) -> None:
        """Insert one row in a transaction of its own; on disk when it returns."""
        execute = self._db.execute
        execute("BEGIN IMMEDIATE")
        execute("INSERT INTO rows (row) VALUES (?)", (self._text,))
        execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def commits_of(ledger: Path, work: Callable[[], object], times: int = 4) -> float:
    """Return how many transactions of `ledger` one run of `work` commits.

    Right only while the log is not started anew, so: of a ledger that was just opened.
    """
    before = _commit_frames(ledger)
    for _ in range(times):
        work()
    return (_commit_frames(ledger) - before) / times


def _commit_frames(ledger: Path) -> int:
    log = ledger.with_name(ledger.name + "-wal")
    raw = log.read_bytes() if log.exists() else b""
    if len(raw) < _HEADER:
        return 0
    page, salts = struct.unpack(">I", raw[8:12])[0], raw[16:24]
    found = 0
    for start in range(_HEADER, len(raw) - _FRAME + 1, _FRAME + page):
        if raw[start + 8 : start + 16] != salts:  # left over from before the log was started anew
            break
        found += raw[start + 4 : start + 8] != bytes(4)
    return found


class AppendedFile:
    """A file that lines are appended to, each synced: the least that a log of lines takes to be durable."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._line = b"x" * LINE_BYTES + b"\n"

    def append(self) -> None:
        """Append one line; on disk when it returns."""
        self._file.write(self._line)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
