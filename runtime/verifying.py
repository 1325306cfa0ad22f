"""Verification: whether a ledger's chain is whole from its first row to its last, and its contents are unchanged.

One rule: it only looks, and what it calls whole was hashed, every row, in this run. The chain is held to its hashes
piece by piece, several processes at once (`runtime.verifying_pieces`); a piece in which anything is not as it must be
is looked at again here, window by window, and the bad window row by row, which names what is wrong.

What it can prove: that no row was changed, removed, reordered or inserted without every later hash being made anew.
Somebody who can write the file can make them anew, or put an old copy back: that is found only against a head that
was kept elsewhere (`expect_head`). State beside the chain (claims, meters, approvals under way) has no hashes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from runtime.errors import LedgerError
from runtime.evidence import BrokenLink
from runtime.inspection import identity, settled
from runtime.ledgerfile import translated
from runtime.trace import DECISIONS, GENESIS, OUTCOMES
from runtime.verifying_pieces import Piece, look_at
from runtime.verifying_windows import (
    CONTENTS,
    HEX,
    LINKS,
    OF_CONTENTS,
    OF_LINKS,
    WINDOW_ROWS,
    asks,
    hash_at,
    linked,
    read,
    texts,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from runtime.verifying_windows import Whole, Window

MAX_TOLD: Final = 1_000
"""Most faults that are named one by one; all are counted."""

PIECE: Final = 4_096
"""Positions of one piece: some 15 ms of work."""

_TABLES: Final = {"d": DECISIONS.name, "o": OUTCOMES.name}
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
        if not (position.isdecimal() and len(digest) == HEX and set(digest) <= set("0123456789abcdef")):
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

    Cost: 4 µs of processor time for a decision of 2 KiB, 2 for an outcome and 1 for a small content, divided among
    the cores; memory for a window of 256 KiB and an interpreter on each. While it reads, a ledger in use keeps its
    log.
    """
    path = Path(path)
    with translated(path, "verify"):
        if not path.is_file():
            raise LedgerError(f"no ledger at {str(path)!r}; check the path")
        return settled(path, lambda database, place: _Verification(database, place, expect_head).run())


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

    def run(self) -> Verified:
        self.ledger_id = identity(self.database, self.path)
        ((end, last),) = self.database.execute(_END).fetchall()
        wanted = 0 if self.expected is None else self.expected.position
        pieces = [*_pieces("chain", end, wanted), *_pieces("contents", last, 0)]
        rows = hashed = unhashed = 0
        for piece, whole in zip(pieces, look_at(self.database, self.path, pieces), strict=True):
            if piece.kind == "chain":
                rows += self._links(piece, whole)
            else:
                found = (whole.rows, 0) if whole is not None else self._contents(piece)
                hashed, unhashed = hashed + found[0], unhashed + found[1]
        self._look_for_expected()
        return Verified(
            path=self.path, ledger_id=self.ledger_id, rows=rows, head=self.head, contents=hashed, unhashed=unhashed,
            broken=tuple(self.broken), changed=tuple(self.changed), faults=self.faults,
        )  # fmt: skip

    def _windows(self, sql: str, piece: Piece) -> Iterator[Window]:
        """Read a piece that is not whole window by window, sized by what the last one held."""
        at, asked = piece.after, WINDOW_ROWS
        while at < piece.upto:
            window = read(self.database, sql, at, min(at + asked, piece.upto))
            at, asked = window.upto, asks(window)
            yield window

    def _one_by_one(self, columns: str, source: str, window: Window) -> Iterator[tuple[Any, ...]]:
        yield from self.database.execute(f"SELECT {columns} FROM {source}", (window.after, window.upto))  # noqa: S608 - ours

    # -- the chain ---------------------------------------------------------------------------------------------

    def _links(self, piece: Piece, whole: Whole | None) -> int:
        """Take a piece of the chain as it was found to be, or look at it again; return how many rows it has."""
        if whole is not None and whole.before == self.head.hash:
            self._pass(piece.upto, whole.last, whole.held)
            return whole.rows
        return sum(map(self._window, self._windows(OF_LINKS, piece)))

    def _window(self, window: Window) -> int:
        if linked(window, self.head.hash) is None:
            return self._walk(window)
        wanted = 0 if self.expected is None else self.expected.position
        held = hash_at(window, wanted) if window.after < wanted <= window.upto else ""
        self._pass(window.upto, window.hashes[-HEX:], held)
        return window.rows

    def _pass(self, upto: int, last: str, held: str) -> None:
        self.head = Head(upto, last)
        if self.expected is not None and held:
            self._hold(self.expected.position, held)

    def _walk(self, window: Window) -> int:
        """Go through a window row by row, and name what is wrong with each."""
        columns, rows = "position, kind, CAST(hash AS BLOB), CAST(row AS BLOB)", 0
        for position, kind, digest, text in self._one_by_one(columns, LINKS, window):
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

    def _contents(self, piece: Piece) -> tuple[int, int]:
        """Look again at a piece of contents; return how many were hashed, and how many have no hash."""
        found = [self._content_window(window) for window in self._windows(OF_CONTENTS, piece)]
        return sum(hashed for hashed, _ in found), sum(unhashed for _, unhashed in found)

    def _content_window(self, window: Window) -> tuple[int, int]:
        if window.rows >= 0 and texts(window) is not None:
            return window.rows, 0
        columns = "CAST(tbl AS BLOB), CAST(key AS BLOB), CAST(hash AS BLOB), CAST(row AS BLOB)"
        hashed, unhashed = 0, 0
        for table, key, digest, text in self._one_by_one(columns, CONTENTS, window):
            hashed, unhashed = hashed + (digest is not None), unhashed + (digest is None)
            if digest is not None and hashlib.sha256(text).hexdigest().encode() != digest:
                self.faults += 1
                if len(self.changed) < MAX_TOLD:
                    self.changed.append(
                        ChangedContent(table.decode(errors="replace"), key.decode(errors="replace"))
                    )
        return hashed, unhashed


def _pieces(kind: Literal["chain", "contents"], end: int, wanted: int) -> Iterator[Piece]:
    """Pieces from the first row to the last."""
    for after in range(0, end, PIECE):
        upto = min(after + PIECE, end)
        yield Piece(kind, after, upto, wanted if after < wanted <= upto else 0)


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
