"""Group commit: threads that write at the same time share one transaction of the ledger, and its one fsync.

One rule: each member of a group gets what it would have got alone. It runs in a savepoint of its own, so one that
raises undoes itself only; and it is told of success only after the COMMIT that holds it has returned.

The first thread to come leads: it runs its own work and that of whoever has queued up behind it, up to `GROUP`. Who
comes while a group is being synced waits for the next one, so groups grow with the disk's latency by themselves, and
a lone thread waits for nobody.

A leader that is interrupted (Ctrl-C reaches the main thread anywhere) undoes the group and puts the others back into
the queue: a work must bear being run again. What is left to chance is bounded by `LOST_SECONDS`: a follower that
nobody woke looks for itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runtime import ledgerfile
from runtime.errors import CommitUncertain, LedgerError
from runtime.ledger_state import Head
from runtime.ledgerfile import FOREIGN, connect, is_busy, lost_acknowledgement, translate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

GROUP: Final = 64
"""Most members of one transaction."""

LOST_SECONDS: Final = 0.5
"""How long a follower waits before it looks whether its leader was interrupted before it could wake anybody."""

_FIRST_PAUSE: Final = 100e-6
_LONGEST_PAUSE: Final = 1e-3
"""Pauses between attempts while another process writes; SQLite's own begin at 1 ms and grow to 100."""


class _Member:
    """One thread's work, and what came of it."""

    __slots__ = ("done", "error", "result", "wake", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: Exception | None = None
        self.done = False
        self.wake = threading.Lock()
        self.wake.acquire()

    def signal(self) -> None:
        """Wake its thread; by a leader only."""
        if self.wake.locked():
            self.wake.release()


class Writer:
    """The connection that a handle writes with. Use from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = Head()
        self.refuses: str | None = None
        """Why the handle cannot be used any more; null: it can."""
        self.connection = connect(path)
        self.connection.execute("PRAGMA busy_timeout=0")  # `_begin` waits, in shorter steps than SQLite
        self._lock = threading.Lock()
        """Held by the leader; only by `with`, which no interruption can come between."""
        self._seat = threading.Lock()
        """Taken by who may ask for the lock: others wait to be woken, since who is done must not stand in a queue."""
        self._queue: deque[_Member] = deque()
        self._pid = os.getpid()
        _open.add(self)

    @property
    def inherited(self) -> bool:
        """Whether this is a fork of the process that opened it: the connection and the lock are the parent's."""
        return os.getpid() != self._pid

    def refuse(self, why: str) -> None:
        """Begin no further transaction, and let nobody read; the first reason given stays."""
        self.refuses = self.refuses or why

    def close(self) -> None:
        """Let the group under way end, then close; safe to call twice."""
        with self._lock:
            self.connection.close()

    def require_usable(self) -> None:
        """Refuse to go on after a failed sync, after `close`, and in a fork.

        Raises:
            LedgerError: saying why.
        """
        if self.refuses is not None:
            raise self._unusable()

    def _unusable(self) -> LedgerError:
        return LedgerError(f"ledger {str(self.path)!r} cannot be used: {self.refuses}; open it again")

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in a transaction; return what it returned, once that is on disk.

        Args:
            work: moves tables; whatever it raises undoes it. It begins and ends no transaction, and bears being run
                again, on any thread.

        Raises:
            CommitConflict: another process kept the file locked. Nothing was written; safe to retry.
            CommitUncertain: the disk failed while syncing. Reopen, and look.
            LedgerError: the disk refuses, or the handle cannot be used. Nothing was written.
        """
        self.require_usable()
        member = _Member(work)
        try:
            self._queue.append(member)
            while not member.done:
                if self._seat.acquire(blocking=False):
                    try:
                        self._lead(member)
                    finally:
                        self._leave()
                elif not member.wake.acquire(timeout=LOST_SECONDS) and not self._lock.locked():
                    self._leave()  # its holder was interrupted between taking it and `try`
        except BaseException:
            self._withdraw(member)
            raise
        if (error := member.error) is not None:
            member.error = None  # its traceback holds frames that hold the member
            try:
                raise error
            finally:
                del error
        return member.result  # type: ignore[no-any-return]  # what this very `work` returned

    def read(self, sql: str, parameters: tuple[object, ...]) -> list[Any] | None:
        """Run a short SELECT on this connection if nobody writes; null: somebody does, or it cannot be read now."""
        if self._lock.locked():
            return None
        with self._lock:  # who got in between makes it wait for one commit, which is as right
            if self.refuses is not None:
                return None
            try:
                return self.connection.execute(sql, parameters).fetchall()
            except FOREIGN:  # busy, say: the reader has the patience, and the words
                return None

    def _withdraw(self, member: _Member) -> None:
        """Leave the queue; one that is being committed already stays there, as unknown as any interrupted COMMIT."""
        with contextlib.suppress(ValueError):
            self._queue.remove(member)
        self._wake_first()

    def _leave(self) -> None:
        """Give the seat to whoever comes, or waits."""
        try:  # noqa: SIM105 - `suppress` would cost every commit 1 µs
            self._seat.release()
        except RuntimeError:  # somebody thought it lost
            pass
        if self._queue:
            self._wake_first()

    def _wake_first(self) -> None:
        with contextlib.suppress(IndexError):
            self._queue[0].signal()

    def _lead(self, mine: _Member) -> None:
        """Commit those who are queued, and tell them."""
        queue, group = self._queue, list[_Member]()
        with self._lock:
            if mine.done:
                return
            if mine not in queue:
                mine.error, mine.done = self._uncertain("its leader was interrupted"), True
                return
            try:
                while queue and len(group) < GROUP:
                    group.append(queue.popleft())
                self._commit(group, mine)
            finally:
                for member in group:
                    if not member.done:
                        member.error = member.error or self._uncertain("its leader was interrupted")
                        member.done = True
                    if member is not mine:
                        member.signal()

    def _commit(self, group: list[_Member], mine: _Member) -> None:
        """Run a group in one transaction. Whoever is in it afterwards and not done was committed or not: unknown."""
        db, committing = self.connection, False
        if self.refuses is not None:
            self._fail(group, self._unusable(), committing=False)
            return
        try:
            self._begin(db)
            if len(group) == 1:
                self._attempt(db, group[0], "ROLLBACK")
            else:
                for member in group:
                    db.execute("SAVEPOINT member")
                    self._attempt(db, member, "ROLLBACK TO member")
                    db.execute("RELEASE member")
            committing = True
            if db.in_transaction:
                db.execute("COMMIT")
        except (sqlite3.Error, LedgerError) as exc:
            _undo(db)
            self._fail(group, exc, committing=committing)
        except BaseException:  # the leader is interrupted
            if committing and not db.in_transaction:
                _done(group)  # after its COMMIT
            else:
                _undo(db)
                self._queue.extendleft(member for member in reversed(group) if member is not mine)
                group.clear()
            raise
        else:
            self.head.committed()
            _done(group)

    def _begin(self, db: sqlite3.Connection) -> None:
        """Take the write lock of the file; wait while another process has it."""
        self.head.end = None
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if not is_busy(exc):
                raise
            self._begin_patiently(db)

    def _begin_patiently(self, db: sqlite3.Connection) -> None:
        pause, deadline = _FIRST_PAUSE, time.monotonic() + ledgerfile.BUSY_SECONDS
        while True:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not is_busy(exc) or time.monotonic() > deadline:
                    raise
            else:
                return

    def _attempt(self, db: sqlite3.Connection, member: _Member, undo: str) -> None:
        """Run one member's work; what it raises is its own, and undoes nobody else's.

        Raises:
            LedgerError: the disk refused in a way that undid the whole transaction.
        """
        member.error = None  # of an earlier attempt, whose leader was interrupted
        before = self.head.end
        try:
            member.result = member.work(db)
        except Exception as exc:
            foreign = isinstance(exc, FOREIGN)
            member.error = translate(exc, self.path, "write to") if foreign else exc
            self.head.end = before
            if not db.in_transaction:
                raise translate(exc, self.path, "write to") from exc
            db.execute(undo)

    def _fail(self, group: list[_Member], cause: Exception, *, committing: bool) -> None:
        """Tell those whose own work did not fail that the transaction did."""
        lost = committing and isinstance(cause, sqlite3.Error) and lost_acknowledgement(cause)
        if lost:
            self.refuse(f"its disk failed: {cause}")
        for member in group:
            if member.error is None:
                member.error = self._uncertain(str(cause)) if lost else _translated(cause, self.path)
                member.error.__cause__ = cause
            member.done = True

    def _uncertain(self, why: str) -> CommitUncertain:
        return CommitUncertain(
            f"ledger {str(self.path)!r} may or may not hold the last commit: {why}; reopen it and look"
        )


def _done(group: list[_Member]) -> None:
    for member in group:
        member.done = True


def _translated(cause: Exception, path: Path) -> Exception:
    """A new error for each thread that raises it."""
    if isinstance(cause, LedgerError):
        return type(cause)(*cause.args)
    return translate(cause, path, "write to")


def _undo(db: sqlite3.Connection) -> None:
    """Roll back if a transaction is open; SQLite has closed it itself after some errors."""
    if db.in_transaction:
        db.execute("ROLLBACK")


_open: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for writer in list(_open):
        writer.refuses = (
            f"it was opened in process {os.getppid()}, this is {os.getpid()}; a fork must open its own"
        )
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
