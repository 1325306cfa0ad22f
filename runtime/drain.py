"""The drain: what the ledger holds reaches the lake exactly once.

One rule: a batch is committed with the very table handle from which the last drained sequence was read. Delta
records the batch's last sequence with it, under an application id of this ledger and table, and refuses the
commit if anybody recorded that id after the handle was opened. So a drainer that was paused, lost its lease and
wakes up is refused, whatever it believes; it then starts again from the read and finds its rows there.

Nothing is remembered on the ledger's side: a drainer killed between the commit and whatever comes next has
finished, and the next one reads so from the table. Tables are drained in the order of `trace.DRAINED`, up to one
moment of the ledger, so that no row in the lake refers to a missing one.

The lease in the ledger keeps two drainers from doing the same work; nothing rests on it. A holder on this machine
whose process is gone loses it at once, any other when it expires.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runtime.canonical import new_id
from runtime.drain_batches import LARGE_ROWS, Batches
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError
from runtime.ledger_state import EVIDENCE
from runtime.trace import DRAINED, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.drain_batches import Batch
    from runtime.lake import LakeStore
    from runtime.ledger import Ledger

BATCH_ROWS: Final = 20_000
"""Most rows of one Delta commit."""

MAX_REFUSALS: Final = 20
"""Refused commits in a row on one table before the drain gives up with `CommitConflict`."""

_LEASE: Final = "drain"
_POLL_SECONDS: Final = 0.05


def _nothing(_step: str) -> None:
    """Stand at a named point and go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What one drain did."""

    rows: Mapping[str, int]
    """Rows appended by this drain, by table; tables with none are left out."""
    upto: int
    """Every decision and outcome up to this position of the chain is in the lake."""
    attempts: int
    """How often a table was opened to commit to it: commits made plus commits refused."""
    holder: str | None = None
    """Who else is draining, if the lease was held; then nothing was done and `upto` is 0."""


def drain(
    ledger: Ledger,
    store: LakeStore,
    *,
    lease_seconds: float = 60,
    wait_seconds: float = 0,
    at_step: Callable[[str], None] = _nothing,
) -> DrainReport:
    """Move everything the ledger holds at this moment into the lake.

    Args:
        ledger: where from; it keeps its rows.
        store: where to; opened for writing.
        lease_seconds: how long others leave the work to us; renewed before each table.
        wait_seconds: how long to wait for another drainer to finish; 0: leave it to them.
        at_step: called at each named point (`leased`, then for each batch `opened:<table>`, `read:<table>`,
            `written:<table>`, at last `drained`): where tests kill or interleave.

    Raises:
        CommitConflict: others commit to a table faster than we can; safe to retry.
        LedgerCorrupt: a row does not have its hash, or the lake knows more of this ledger than it holds (an old
            copy was restored); nothing of that batch was written.
        LedgerError: the lake refuses. What was committed stays; drain again.

    Cost: some 18 µs of processor time a decision (2 KiB), spread over two processors where there are many, and 10 ms
    a table; memory for two batches (of 20,000 rows or 60 MiB of text), since one is read while another is written.
    """
    holder = f"{socket.gethostname()}/{os.getpid()}/{new_id()}"
    other = _take_lease(ledger, holder, lease_seconds, wait_seconds)
    if other is not None:
        return DrainReport(rows={}, upto=0, attempts=0, holder=other)
    try:
        at_step("leased")
        with Batches(ledger) as batches:
            run = _Run(ledger, store, ledger.extent(), at_step, batches)
            for table in DRAINED:
                ledger.lease(_LEASE, holder, lease_seconds)
                run.table(table)
        at_step("drained")
    finally:
        ledger.release(_LEASE, holder)
    return DrainReport(
        rows={name: count for name, count in run.rows.items() if count},
        upto=run.extent[0],
        attempts=run.attempts,
    )


def app_id(ledger_id: str, table: Table) -> str:
    """Return the application id under which a ledger's rows are committed to a table."""
    return f"redecide:{ledger_id}:{table.name}"


@dataclass
class _Run:
    """One drain under way."""

    ledger: Ledger
    store: LakeStore
    extent: tuple[int, int]
    """Last position and last content sequence at the start: later rows are left to the next drain."""
    at_step: Callable[[str], None]
    batches: Batches
    rows: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    """Last sequence committed, by table."""
    attempts: int = 0

    def table(self, table: Table) -> None:
        """Drain one table, batch by batch."""
        refusals = 0
        while True:
            try:
                count = self._batch(table)
            except CommitConflict:
                refusals += 1
                if refusals == MAX_REFUSALS:
                    raise
                continue
            if not count:
                return
            self.rows[table.name] = self.rows.get(table.name, 0) + count
            refusals = 0

    def _batch(self, table: Table) -> int:
        """Open, read, commit with the same handle; return how many rows were left to commit."""
        upto = self.extent[_half(table)]
        if not self.ledger.stored_after(table, 0, upto, 1):
            return 0  # never a row: no empty table in the lake
        app = app_id(self.ledger.id, table)
        handle = self.store.create(table)
        self.at_step(f"opened:{table.name}")
        done = handle.transaction_version(app) or 0
        self._require_progress(table, done)
        self.at_step(f"read:{table.name}")
        batch = self.batches.take(table, done, upto, BATCH_ROWS)
        if not batch.rows:
            return 0
        self._look_ahead(table, batch)
        self.attempts += 1
        self.store.append(table, batch.data, app=(app, batch.last), handle=handle)
        self.sent[table.name] = batch.last
        self.at_step(f"written:{table.name}")
        return batch.rows

    def _look_ahead(self, table: Table, batch: Batch) -> None:
        """Begin to read what will probably come next, while this is written."""
        if batch.full:
            self.batches.read_ahead(table, lambda: batch.last, self.extent[_half(table)], BATCH_ROWS)
        elif batch.rows >= LARGE_ROWS and table is not DRAINED[-1]:
            following = DRAINED[DRAINED.index(table) + 1]
            upto = self.extent[_half(following)]
            self.batches.read_ahead(following, lambda: self._done(following), upto, BATCH_ROWS)

    def _done(self, table: Table) -> int:
        """Up to where the lake holds a table at this moment. The commit looks for itself."""
        found = self.store.table(table)
        return 0 if found is None else found.transaction_version(app_id(self.ledger.id, table)) or 0

    def _require_progress(self, table: Table, done: int) -> None:
        """Refuse a lake that is ahead of the ledger, or that lost what this very drain has committed."""
        if done > self.extent[_half(table)] and done > (end := self.ledger.extent()[_half(table)]):
            raise LedgerCorrupt(
                f"the lake holds `{table.name}` of ledger {str(self.ledger.path)!r} up to {done}, but the ledger "
                f"ends at {end}: an old copy was put back; keep both and start a new ledger"
            )
        if done < (sent := self.sent.get(table.name, 0)):
            raise LedgerError(
                f"`{table.name}` of the lake was drained up to {sent} a moment ago and now says {done}: "
                "was an old version restored? drain again when nobody changes it"
            )


def _half(table: Table) -> int:
    """Which of `Ledger.extent` counts a table's rows: positions of the chain, or sequence of contents."""
    return 0 if table.name in EVIDENCE else 1


def _take_lease(ledger: Ledger, holder: str, seconds: float, wait_seconds: float) -> str | None:
    """Take the lease; who has it instead, if it stays with somebody else for `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    while (other := ledger.lease(_LEASE, holder, seconds)) != holder:
        if _is_gone(other):
            ledger.release(_LEASE, other)
        elif time.monotonic() >= deadline:
            return other
        else:
            time.sleep(_POLL_SECONDS)
    return None


def _is_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine that no longer runs."""
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
