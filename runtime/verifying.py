"""Verification: whether a ledger's chain is whole from its first row to its last, and its contents are unchanged.

One rule: it only looks, and what it calls whole was hashed, every row, in this run. A window of the chain is held to
its hashes as one text; where anything in it is not as it must be, the window is gone through row by row, which names
what is wrong.

What it can prove: that no row was changed, removed, reordered or inserted without every later hash being made anew.
Somebody who can write the file can make them anew, or put an old copy back: that is found only against a head that
was kept elsewhere (`expect_head`). State beside the chain (claims, meters, approvals under way) has no hashes.

Reading and hashing go on at once, in two threads: SQLite reads without the interpreter, and so are long texts hashed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from runtime.errors import LedgerError
from runtime.evidence import BrokenLink
from runtime.inspection import identity, settled
from runtime.ledgerfile import translated
from runtime.trace import DECISIONS, GENESIS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TOLD: Final = 1_000
"""Most faults that are named one by one; all are counted."""

_WINDOW_BYTES: Final = 2 << 20
_WINDOW_ROWS: Final = 1_024
_MAX_ROWS: Final = 8_192
_MAX_JOINED: Final = 32 << 20
_LONGEST: Final = 10**9
_HEX: Final = 64
_TABLES: Final = {"d": DECISIONS.name, "o": OUTCOMES.name}
_LINKS: Final = (
    "(SELECT position, hash, row, 'd' AS kind FROM decisions WHERE position > ?1 AND position <= ?2 UNION ALL"
    " SELECT position, hash, row, 'o' FROM outcomes WHERE position > ?1 AND position <= ?2 ORDER BY position)"
)
_CONTENTS: Final = (
    "(SELECT sequence, tbl, key, hash, row FROM contents WHERE sequence > ?1 AND sequence <= ?2"
    " ORDER BY sequence)"
)
_JOINED: Final = (
    "SELECT count(*), {0}, group_concat(hash, ''), CAST(group_concat(row, char(10)) AS BLOB) FROM {1}"
)
_OF_LINKS: Final = _JOINED.format("group_concat(kind, '')", _LINKS)
_OF_CONTENTS: Final = _JOINED.format("''", _CONTENTS)
_END: Final = (
    "SELECT max(coalesce((SELECT max(position) FROM decisions), 0),"
    " coalesce((SELECT max(position) FROM outcomes), 0)), coalesce((SELECT max(sequence) FROM contents), 0)"
)


class Head(NamedTuple):
    """Where a chain stands: worth keeping where whoever writes the ledger cannot."""

    position: int
    """Of the last row; 0: the chain is empty."""
    hash: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a head as `str` writes it: `POSITION:HASH`.

        Raises:
            ValueError: naming what was given and what is allowed.
        """
        position, _, digest = text.partition(":")
        if not (position.isdecimal() and len(digest) == _HEX and set(digest) <= set("0123456789abcdef")):
            raise ValueError(
                f"a head is written POSITION:HASH, as `redecide verify` prints it, got {text!r:.100}"
            )
        return cls(int(position), digest)

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


_BEGIN: Final = Head(0, GENESIS)


class ChangedContent(NamedTuple):
    """A content that does not have the hash it was stored with."""

    table: str
    key: str
    """Its address, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verification found."""

    path: Path
    ledger_id: str
    rows: int
    """Rows of the chain that were hashed."""
    head: Head
    """The last row of the chain."""
    contents: int
    """Rows of contents that were hashed."""
    unhashed: int
    """Contents written before version 3, which have no hash of their own; their addresses still name them."""
    broken: tuple[BrokenLink, ...]
    """What is wrong in the chain, by position; at most `MAX_TOLD`."""
    changed: tuple[ChangedContent, ...]
    """Contents that were changed; at most `MAX_TOLD`."""
    faults: int
    """How many faults there are, named or not."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify_ledger(path: str | Path, *, expect_head: Head | None = None) -> Verified:
    """Hash a ledger's chain and contents.

    Args:
        path: its file; it may be in use.
        expect_head: of this ledger, as an earlier verification returned it: the chain has to contain it still.

    Raises:
        LedgerCorrupt: the file is no ledger, or too damaged to read.
        LedgerTooNew: a newer release wrote it.
        CommitConflict: it changes faster than it can be looked at; safe to retry.
        LedgerError: there is none, or it cannot be read.

    Cost: 5 µs of processor time for a decision of 2 KiB and 2 for an outcome, over two threads; memory for a few
    windows of 2 MiB. While it reads, a ledger in use keeps its log.
    """
    path = Path(path)
    with translated(path, "verify"):
        if not path.is_file():
            raise LedgerError(f"no ledger at {str(path)!r}; check the path")
        return settled(path, lambda database, place: _Verification(database, place, expect_head).run())


class _Window(NamedTuple):
    """Rows after `after` up to `upto`, as one text; `rows` is -1 where they could not be read so."""

    after: int
    upto: int
    rows: int
    kinds: str
    hashes: str
    lines: bytes


@dataclass
class _Verification:
    """One verification under way, in one transaction of a connection."""

    database: sqlite3.Connection
    path: Path
    expected: Head | None
    broken: list[BrokenLink] = field(default_factory=list)
    changed: list[ChangedContent] = field(default_factory=list)
    faults: int = 0
    head: Head = _BEGIN
    ledger_id: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the connection is used: a window is read ahead while another may be gone through row by row."""

    def run(self) -> Verified:
        self.ledger_id = identity(self.database, self.path)
        ((end, last),) = self.database.execute(_END).fetchall()
        rows = sum(map(self._links, self._windows(_OF_LINKS, end)))
        self._look_for_expected()
        hashed, unhashed = 0, 0
        for window in self._windows(_OF_CONTENTS, last):
            found = self._contents(window)
            hashed, unhashed = hashed + found[0], unhashed + found[1]
        return Verified(
            path=self.path, ledger_id=self.ledger_id, rows=rows, head=self.head, contents=hashed, unhashed=unhashed,
            broken=tuple(self.broken), changed=tuple(self.changed), faults=self.faults,
        )  # fmt: skip

    def _windows(self, sql: str, end: int) -> Iterator[_Window]:
        """Read window by window, each while the one before is looked at; sized by what the last one held."""
        asked = _WINDOW_ROWS
        with ThreadPoolExecutor(1, thread_name_prefix="redecide-verify") as thread:
            coming = thread.submit(self._read, sql, 0, _upto(0, asked, end)) if end else None
            while coming is not None:
                window, coming = coming.result(), None
                if window.rows < 0:
                    asked = max(1, (window.upto - window.after) // 8)
                elif window.lines:
                    asked = max(
                        1, min(_MAX_ROWS, _WINDOW_BYTES * (window.upto - window.after) // len(window.lines))
                    )
                if window.upto < end:
                    coming = thread.submit(self._read, sql, window.upto, _upto(window.upto, asked, end))
                yield window

    def _read(self, sql: str, after: int, upto: int) -> _Window:
        with self.lock:
            self.database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_JOINED)
            try:
                ((rows, kinds, hashes, lines),) = self.database.execute(sql, (after, upto)).fetchall()
            except (sqlite3.DataError, sqlite3.OperationalError) as exc:
                if isinstance(exc, sqlite3.OperationalError) and "decode" not in str(exc).lower():
                    raise
                return _Window(after, upto, -1, "", "", b"")  # too large to be joined, or no text
            finally:
                self.database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        return _Window(after, upto, rows, kinds or "", hashes or "", lines or b"")

    def _one_by_one(self, columns: str, source: str, window: _Window) -> Iterator[tuple[Any, ...]]:
        with self.lock:
            yield from self.database.execute(f"SELECT {columns} FROM {source}", (window.after, window.upto))  # noqa: S608 - ours

    # -- the chain ---------------------------------------------------------------------------------------------

    def _links(self, window: _Window) -> int:
        """Look at a window of the chain; return how many rows it has."""
        if window.rows == window.upto - window.after and _is_whole(window, self.head.hash):
            self._pass(window)
            return window.rows
        return self._walk(window)

    def _pass(self, window: _Window) -> None:
        self.head = Head(window.upto, window.hashes[-_HEX:])
        wanted = self.expected
        if wanted is not None and window.after < wanted.position <= window.upto:
            begin = (wanted.position - window.after - 1) * _HEX
            self._hold(wanted.position, window.hashes[begin : begin + _HEX])

    def _walk(self, window: _Window) -> int:
        """Go through a window row by row, and name what is wrong with each."""
        columns, rows = "position, kind, CAST(hash AS BLOB), CAST(row AS BLOB)", 0
        for position, kind, digest, text in self._one_by_one(columns, _LINKS, window):
            self._row(position, _TABLES[kind], digest.decode(errors="replace"), text)
            rows += 1
        if self.head.position < window.upto:
            self._gap(window.upto)
        return rows

    def _row(self, position: int, table: str, digest: str, text: bytes) -> None:
        if position == self.head.position:
            self._fault(position, table, f"doubled: position {position} occurs more than once")
            return
        if position > self.head.position + 1:
            self._gap(position - 1)
        what = _wrong(position, table, digest, text, self.head)
        if what is not None:
            self._fault(position, table, what)
        self.head = Head(position, digest)
        if self.expected is not None and self.expected.position == position:
            self._hold(position, digest)

    def _gap(self, upto: int) -> None:
        first = self.head.position + 1
        more = "" if first == upto else f" to {upto}"
        self._fault(first, None, f"missing: position {first}{more}")
        self.head = Head(upto, "")

    def _hold(self, position: int, digest: str) -> None:
        if self.expected is not None and digest != self.expected.hash:
            self._fault(
                position, None, f"changed: hash is {digest}, the head that was kept says {self.expected.hash}"
            )

    def _look_for_expected(self) -> None:
        wanted = self.expected
        if wanted is not None and wanted.position > self.head.position:
            said = f"the head that was kept is at {wanted.position}: an old copy was put back"
            self._fault(
                self.head.position + 1, None, f"missing: the chain ends at {self.head.position}, {said}"
            )
        if wanted is not None and wanted.position == 0 and wanted.hash != GENESIS:
            self._hold(0, GENESIS)

    def _fault(self, position: int, table: str | None, what: str) -> None:
        self.faults += 1
        if len(self.broken) < MAX_TOLD:
            self.broken.append(BrokenLink(self.ledger_id, position, table, what))

    # -- contents ----------------------------------------------------------------------------------------------

    def _contents(self, window: _Window) -> tuple[int, int]:
        """Look at a window of contents; return how many were hashed, and how many have no hash."""
        if window.rows >= 0 and _texts(window) is not None:
            return window.rows, 0
        columns = "CAST(tbl AS BLOB), CAST(key AS BLOB), CAST(hash AS BLOB), CAST(row AS BLOB)"
        hashed, unhashed = 0, 0
        for table, key, digest, text in self._one_by_one(columns, _CONTENTS, window):
            hashed, unhashed = hashed + (digest is not None), unhashed + (digest is None)
            if digest is not None and hashlib.sha256(text).hexdigest().encode() != digest:
                self.faults += 1
                if len(self.changed) < MAX_TOLD:
                    self.changed.append(
                        ChangedContent(table.decode(errors="replace"), key.decode(errors="replace"))
                    )
        return hashed, unhashed


def _upto(after: int, rows: int, end: int) -> int:
    """Where a window ends: positions in it have one number of digits, so that they stand in texts of one length."""
    return min(after + rows, end, int("9" * len(str(after + 1))))


def _texts(window: _Window) -> list[bytes] | None:
    """Return the texts of a window if each of them has its hash."""
    sha256 = hashlib.sha256
    texts = window.lines.split(b"\n") if window.rows else []
    if len(texts) != window.rows or len(window.hashes) != _HEX * window.rows:
        return None
    return texts if "".join([sha256(text).hexdigest() for text in texts]) == window.hashes else None


def _is_whole(window: _Window, previous: str) -> bool:
    """Whether the texts of a window are the links that follow `previous`, one at each position, each in its table.

    A quote inside of a text's strings is escaped, so a member's name with its quotes stands only where it is one.
    """
    texts = _texts(window)
    parts = window.lines.split(b',"prev_hash":"')
    if texts is None or len(parts) != window.rows + 1:
        return False
    before = b"".join([part[:_HEX] for part in parts[1:]])
    if before != (previous + window.hashes[:-_HEX]).encode():
        return False
    member, mark = ',"position":', b',"table":"'
    size = len(member) + len(str(window.after + 1))
    positions = member + member.join(map(str, range(window.after + 1, window.upto + 1)))
    if b"".join([part[-size:] for part in parts[:-1]]) != positions.encode():
        return False
    places = [text.rfind(mark) for text in texts]  # from the end, where it stands
    return -1 not in places and window.kinds.encode() == bytes(
        [text[place + len(mark)] for text, place in zip(texts, places, strict=True)]
    )


def _wrong(position: int, table: str, digest: str, text: bytes, before: Head) -> str | None:
    """What is wrong with a row, seen from the row before it; null: nothing."""
    actual = hashlib.sha256(text).hexdigest()
    if actual != digest:
        return f"changed: content hashes to {actual}"
    row = _decoded(text)
    if row.get("position") != position or row.get("table") != table:
        return f"reordered: its text is of position {row.get('position')!r:.40} of {row.get('table')!r:.40}"
    if before.hash and row.get("prev_hash") != before.hash:
        return "reordered: prev_hash is not the hash before it"
    return None


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        row: Any = json.loads(text)
    except ValueError:  # UnicodeDecodeError is one
        return {}
    return row if isinstance(row, dict) else {}
