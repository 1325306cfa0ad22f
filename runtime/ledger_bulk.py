"""Many rows of the ledger at once: SQLite joins their texts into one, and each is held to its hash.

One rule: what is returned has been checked, every row of it. Where anything is not as expected (a hash that does not
fit, a row that is too large to be joined, a page that cannot be read) nothing is returned and nothing is said: the
caller reads the same rows one by one, which is slower and names what is wrong.

One statement reads a span, so the interpreter is free for other threads while SQLite reads, where a cursor would take
it back for each row; and the joined text is what the JSON reader of `runtime.arrow` takes. A canonical text holds no
line break, so line breaks part them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from runtime.ledger_state import CONTENTS, EVIDENCE
from runtime.ledgerfile import connect

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.trace import Table

SPAN_BYTES: Final = 2 << 20
"""Text of one span, about: it is touched by four readers in turn, and stays in the processor's cache between them."""

SPAN_ROWS: Final = 256
"""Rows of the first span of a table, before it is known how long they are."""

MAX_ROWS: Final = 8_192
"""Most rows of one span."""

_MAX_JOINED: Final = 32 << 20
_LINE: Final = b"\n"
_SPAN: Final = (
    "SELECT count(*), max(seq), count(hash), group_concat(hash, ''), CAST(group_concat(row, char(10)) AS BLOB) FROM"
    " (SELECT {0} AS seq, hash, row FROM {1} WHERE {2}{0} > ? AND {0} <= ? ORDER BY {0} LIMIT ?)"
)
_HEX: Final = 64


class Span(NamedTuple):
    """Neighbouring rows of one table, each of which has its hash."""

    last: int
    """Sequence of the last one: `position` of evidence; of contents, a sequence of their own."""
    rows: int
    lines: bytes
    """Their texts as stored, in the order of their sequence, a line break between them; UTF-8."""
    hashes: list[str]
    """Their stored hashes in that order: of evidence its `hash`, of contents the one their text is checked by."""


class SpanReader:
    """Reads spans over a connection of its own, read-only. Use from one thread at a time; close it."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`.

        Raises:
            sqlite3.Error: untranslated: it cannot be opened.
        """
        self._db = connect(path, read_only=True)
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_JOINED)
        self._rows: dict[str, int] = {}

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._db.close()

    def asks(self, table: Table, limit: int) -> int:
        """Return how many rows the next span of a table will hold at most; the larger they were, the fewer."""
        return min(limit, self._rows.get(table.name, SPAN_ROWS))

    def span_after(self, table: Table, after: int, upto: int, limit: int) -> Span | None:
        """Return the first rows of a drained table in `(after, upto]`, at most `asks(table, limit)`.

        Returns:
            Their span; `rows` is 0 where there is none. None: read them one by one, something is not as expected.

        Cost: 5 µs for a decision of 2 KiB, 2 for an outcome of 650 bytes; 60 of 100 of it without the interpreter.
        """
        sql, key = _statement(table)
        asked = self.asks(table, limit)
        try:
            ((count, last, hashed, hashes, lines),) = self._db.execute(
                sql, (*key, after, upto, asked)
            ).fetchall()
        except sqlite3.Error:
            self._rows[table.name] = max(asked // 8, 1)
            return None
        if not count:
            return Span(after, 0, b"", [])
        self._rows[table.name] = max(1, min(MAX_ROWS, SPAN_BYTES * count // len(lines or _LINE)))
        if hashed != count or lines is None:
            return None
        stored = [hashes[i : i + _HEX] for i in range(0, len(hashes), _HEX)]
        return Span(last, count, lines, stored) if _have(lines, stored, count) else None


def _have(lines: bytes, hashes: list[str], count: int) -> bool:
    """Whether there are as many texts and hashes as rows, and each text has its own."""
    sha256 = hashlib.sha256
    return len(hashes) == count and [sha256(text).hexdigest() for text in lines.split(_LINE)] == hashes


def _statement(table: Table) -> tuple[str, tuple[str, ...]]:
    if table.name in EVIDENCE:
        return _SPAN.format("position", table.name, ""), ()
    if table.name in CONTENTS:
        return _SPAN.format("sequence", "contents", "tbl = ? AND "), (table.name,)
    raise ValueError(f"`{table.name}` is not kept in the ledger")
