"""The ledger: the durability point. What a method has written is on disk when it returns.

One rule: whatever belongs together is one SQLite transaction with one fsync: a decision, the contents it refers
to, the idempotency key it claims and the session counters it moves are all there after a crash, or none is.

Decisions and outcomes form one hash chain (`runtime.evidence`), in the order they became durable. Contents are
stored once by address, with a hash of their own; addresses already known are remembered in memory, so a decision over
known contents writes one row. Threads share one writing connection, and transactions (`runtime.ledger_writer`);
single rows and batches are read over connections of their own, so that no lookup waits for an fsync or for a drain.
Several processes may share the file: SQLite's write lock orders them.

Further state (actions, meters, approvals) is in tables of the modules that own it, moved by the same transactions.

Accepted trade-offs: rows are JSON text, not columns, because here they are only appended and fetched by id; the
lake has the columns. Nothing is deleted after a drain: the lake can be rebuilt from the ledger. Rows of evidence and
contents have hashes; rows of state (claims, sessions, actions) have none: of damage there only what breaks the file's
structure is found.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from runtime import ledger_state as state
from runtime.canonical import Json, sha256
from runtime.errors import LedgerCorrupt
from runtime.holders import Holder
from runtime.ledger_state import Claim, ClaimTaken, SessionCounters, SessionMoved, SessionStep, Stored
from runtime.ledger_writer import Writer
from runtime.ledgerfile import FOREIGN, connect, open_ledger_file, translate, translated
from runtime.trace import BLOBS, DECISIONS, GENESIS, OUTCOMES, Table

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    Row = Mapping[str, Json]

Move = state.Move

KNOWN_CONTENTS: Final = 32_768
"""Addresses remembered in memory (about 6 MB); beyond it the memory starts again, at one insert each."""

BATCH_BYTES: Final = 64 << 20
"""Most text `rows_after` returns at once; a single longer row is returned alone."""

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class Ledger:
    """An open ledger. Use from any thread; close it, or use it as a context manager.

    After a failed sync the handle refuses further writes: what the disk holds is then unknown until the file is
    read again.
    """

    def __init__(self, path: Path, ident: str) -> None:
        self.path = path
        self.id = ident
        """Names the chain: `writer` of every row."""
        self._read_lock = threading.Lock()
        self._bulk_lock = threading.Lock()
        self._holder_lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        self._holder: Holder | None = None
        with translated(path, "open"):
            self._writer = Writer(path)
            self._reader = connect(path, read_only=True)
            self._bulk = connect(path, read_only=True)

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> Self:
        """Open the ledger at `path`, creating it and the folders above it if `create`.

        Raises:
            LedgerCorrupt: the file is damaged or not a ledger; its bytes are untouched.
            LedgerTooNew: a newer release wrote it.
            LedgerError: there is none and `create` is false, or the disk refuses.
        """
        path = Path(path)
        ledger = cls(path, open_ledger_file(path, create=create))
        try:
            ledger.head()  # refuses to add to a chain whose last row does not have its hash
        except BaseException:
            ledger.close()
            raise
        return ledger

    def close(self) -> None:
        """Close the file; safe to call twice. In a fork nothing happens: what is open is its parent's."""
        if self._writer.inherited:
            return
        self._writer.refuse("it is closed")
        with self._read_lock, self._bulk_lock, self._holder_lock:
            self._bulk.close()
            self._reader.close()
            self._writer.close()  # last, because it may write: it moves the log into the file
            if self._holder is not None:
                self._holder.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def holder(self) -> Holder:
        """This handle as the holder of the actions it lets run: alive until it is closed or its process ends.

        Raises:
            LedgerError: beside the ledger no file can be locked.
        """
        if self._holder is None:
            with self._holder_lock:
                self._writer.require_usable()
                if self._holder is None:
                    self._holder = Holder.take(self.path)
        return self._holder

    # -- writing -----------------------------------------------------------------------------------------------

    def commit(
        self,
        *,
        contents: Sequence[tuple[Table, Row]] = (),
        evidence: Sequence[tuple[Table, Row]] = (),
        claim: Claim | None = None,
        session: SessionStep | None = None,
        moves: Sequence[Move] = (),
    ) -> list[dict[str, Json]]:
        """Write everything given, or nothing.

        Args:
            contents: rows of content-addressed tables; those already stored are skipped.
            evidence: rows of `decisions` and `outcomes` without chain columns, chained in this order.
            claim: an idempotency key to take.
            session: the step of a session to take.
            moves: further changes of state, run in this order after everything else; one that raises undoes all.

        Returns:
            The evidence rows with their chain columns, in order.

        Raises:
            ClaimTaken: the key is in use. Nothing was written.
            SessionMoved: the session has moved on. Nothing was written; decide again.
            CommitConflict: another process kept the file locked. Nothing was written; safe to retry.
            CommitUncertain: the disk failed while syncing. Reopen, and look whether the rows are there.
            LedgerError: the disk refuses (full, read-only, damaged). Nothing was written.
            ValueError: a row does not fit its table. Nothing was written.

        Durability: on disk when it returns. Cost: one fsync, shared with threads that commit at the same time, and
        some 60 µs of CPU for a decision of 2 KiB with a claim and a session step (caches warm; three times that
        after a sync has emptied them), 35 for an outcome, of which SQLite takes more than half.
        """
        links, texts, holder = [], [], None
        for table, row in evidence:
            links.append(state.check_evidence(table, row))
            if table is DECISIONS:
                holder = self.holder.id  # alive before anybody can read that it runs something
        for table, row in contents:
            if (table.name, row[table.key]) not in self._known:
                texts.append((table.name, str(row[table.key]), state.content_text(table, row)))

        def work(db: sqlite3.Connection) -> list[dict[str, Json]]:
            state.add_contents(db, texts)
            if claim is not None:
                state.take_claim(db, claim)
            if session is not None:
                state.take_step(db, session)
            rows = state.append(db, self.id, self._writer.head, links, holder) if links else []
            for move in moves:
                move(db)
            return rows

        rows = self._writer.run(work)
        if texts:
            self._remember(texts)
        return rows

    def _remember(self, contents: Sequence[tuple[str, str, str]]) -> None:
        if len(self._known) + len(contents) > KNOWN_CONTENTS:
            self._known.clear()
        self._known.update((table, key) for table, key, _ in contents)

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        with self._read_lock:
            self._writer.require_usable()
            try:
                return self._reader.execute(sql, parameters).fetchall()
            except FOREIGN as exc:
                raise translate(exc, self.path, "read") from exc

    def glance(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return the few rows of a SELECT by key, for what every call looks at.

        Over the writing connection while that stands idle: it still has the pages it wrote, where the reader has to
        fetch them again after each commit. While somebody commits, over the reader, so that none waits for the disk.
        """
        self._writer.require_usable()
        found = self._writer.read(sql, parameters)
        return self._read(sql, parameters) if found is None else found

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return the rows of a SELECT over the state's tables, for the modules that own them."""
        return self._read(sql, parameters)

    def claim(self, key_hash: str) -> Claim | None:
        """Return who holds an idempotency key."""
        found = self.glance(state.CLAIM, (key_hash,))
        return Claim(*found[0]) if found else None

    def session(self, tenant: str, session_id: str) -> SessionCounters:
        """Return where a session stands; zeros for one that has not begun."""
        found = self._read(state.COUNTERS, (tenant, session_id))
        return SessionCounters(*found[0]) if found else SessionCounters(0, 0)

    def decision(self, decision_id: str) -> dict[str, Json] | None:
        """Return a decision's row, every column present.

        Raises:
            LedgerCorrupt: the stored row does not have its hash.
        """
        found = self._read(state.DECISION, (decision_id,))
        return self._row(DECISIONS, found[0]) if found else None

    def outcome_of(self, decision_id: str) -> dict[str, Json] | None:
        """Return the last execution outcome of a decision, every column present.

        Raises:
            LedgerCorrupt: the stored row does not have its hash.
        """
        found = self._read(state.EXECUTION, (decision_id,))
        return self._row(OUTCOMES, found[0]) if found else None

    def blob(self, blob_hash: str) -> str | None:
        """Return the JSON text of a large argument or result, by its address."""
        found = self._read(state.CONTENT, (BLOBS.name, blob_hash))
        return str(self._decode(Stored(*found[0]))["data"]) if found else None

    def unfinished(self) -> list[dict[str, Json]]:
        """Return the decisions that let a call run and have no execution outcome, oldest first.

        Cost: O(their number), whatever the history.
        """
        return [self._row(DECISIONS, stored) for stored in self._read(state.UNFINISHED)]

    def head(self) -> tuple[int, str]:
        """Return the chain's last position and its hash; (0, 64 zeros) when it is empty.

        Raises:
            LedgerCorrupt: the last row does not have its hash.
        """
        found = self._read(state.HEAD)
        if not found:
            return 0, GENESIS
        position, digest = found[0]
        for table in (DECISIONS, OUTCOMES):
            for stored in self.stored_after(table, position - 1, position, 1):
                self.verify(stored)
        return int(position), str(digest)

    def extent(self) -> tuple[int, int]:
        """Return the last position of the chain and the last sequence number of contents, of one moment."""
        ((position, sequence),) = self._read(state.EXTENT)
        return int(position), int(sequence)

    def rows_after(
        self, table: Table, after: int, upto: int, limit: int
    ) -> list[tuple[int, dict[str, Json]]]:
        """Return the rows of a drained table in `(after, upto]`, in order, at most `limit`, with their sequence.

        The sequence is `position` for `decisions` and `outcomes`, and one count over all contents otherwise.

        Raises:
            LedgerCorrupt: a stored row does not have its hash.
        """
        rows = self.stored_after(table, after, upto, limit)
        return [(stored.sequence, self._decode(stored)) for stored in rows]

    def stored_after(
        self, table: Table, after: int, upto: int, limit: int, *, max_bytes: int = BATCH_BYTES
    ) -> list[Stored]:
        """Return rows as `rows_after` does, undecoded and unchecked, and no more than `max_bytes` of text."""
        sql, key = state.select_after(table)
        rows: list[Stored] = []
        with self._bulk_lock:
            self._writer.require_usable()
            # Closed at once: an unfinished cursor would pin the log's checkpoint.
            with (
                translated(self.path, "read"),
                contextlib.closing(self._bulk.execute(sql, (*key, after, upto, limit))) as cursor,
            ):
                for row in itertools.starmap(Stored, cursor):
                    max_bytes -= len(row.text)
                    if max_bytes < 0 and rows:
                        break
                    rows.append(row)
        return rows

    def _row(self, table: Table, found: tuple[int, str, str]) -> dict[str, Json]:
        row = self._decode(Stored(*found))
        return {column.name: row.get(column.name) for column in table.columns}

    def _decode(self, stored: Stored) -> dict[str, Json]:
        self.verify(stored)
        row: dict[str, Json] = _decoder.decode(stored.text)
        del row["table"]
        return row if stored.hash is None else row | {"hash": stored.hash}

    def verify(self, stored: Stored) -> None:
        """Refuse a row that does not have its hash.

        Raises:
            LedgerCorrupt: naming the position.
        """
        expected = stored.hash or stored.check
        if expected is not None and sha256(stored.text) != expected:
            where = "position" if stored.hash else "content"
            raise LedgerCorrupt(
                f"ledger {str(self.path)!r}: row at {where} {stored.sequence} does not have its hash; "
                "keep the file and restore a copy"
            )

    # -- leases ------------------------------------------------------------------------------------------------

    def lease(self, name: str, holder: str, seconds: float) -> str:
        """Take or renew a lease, unless somebody else holds it; return who holds it now.

        A lease saves useless work; nothing may rest on it, because clocks jump and holders sleep.
        """
        now = time.time_ns() // 1000
        expires = now + int(seconds * 1_000_000)
        return self._writer.run(lambda db: state.take_lease(db, name, holder, now, expires))

    def release(self, name: str, holder: str) -> None:
        """Give a lease back; nothing happens if `holder` does not have it."""
        self._writer.run(
            lambda db: db.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder)).rowcount
        )


__all__ = [
    "Claim",
    "ClaimTaken",
    "Ledger",
    "Move",
    "SessionCounters",
    "SessionMoved",
    "SessionStep",
    "Stored",
]
