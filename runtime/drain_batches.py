"""Batches of the drain: what one commit to the lake holds, read and parsed while the one before is written.

One rule: a batch is what the ledger holds after a given sequence, whoever read it and when: rows up to the extent of
a drain never change, so one that was read ahead is as good as one read now. It is used only if it begins where the
lake says its table ends; otherwise it is dropped and read anew. What went wrong while reading ahead is not looked at:
the same rows are read again when they are due, and go wrong then.

A large drain keeps two processors busy: one thread reads and checks, one turns JSON into columns, the caller's
writes. A small one, up to the first full span, starts no thread.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

from runtime.arrow import arrow_of_lines, joined
from runtime.ledger_bulk import SPAN_BYTES, Span, SpanReader
from runtime.ledgerfile import translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import pyarrow as pa

    from runtime.ledger import Ledger
    from runtime.trace import Table

_T = TypeVar("_T")

MAX_BYTES: Final = 60 << 20
"""Text after which a batch ends, whatever the number of its rows."""

LARGE_ROWS: Final = 1_000
"""From so many rows on a batch is worth reading the next table's ahead."""


class Batch(NamedTuple):
    """Rows of one table that are committed together."""

    table: str
    after: int
    """Sequence after which they begin."""
    last: int
    """Sequence of the last one; `after` where there is none."""
    rows: int
    full: bool
    """It ended because it is large enough, not because there is no more."""
    data: pa.Table
    """The rows, as `runtime.arrow.arrow_schema` has them."""


class Batches:
    """The batches of one drain. Use from one thread; close it, or use it as a context manager."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reader: SpanReader | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._ahead: Future[Batch] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is being read, and close the connection."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        if self._reader is not None:
            self._reader.close()

    def take(self, table: Table, after: int, upto: int, limit: int) -> Batch:
        """Return the rows of a table in `(after, upto]`, in order, at most `limit` of them or some 60 MiB of text.

        Raises:
            LedgerCorrupt: a row does not have its hash.
            LedgerError: the ledger cannot be read.
            ValueError: a row does not fit its table.
        """
        pending, self._ahead = self._ahead, None
        if pending is not None and not pending.cancel() and pending.exception() is None:
            found = pending.result()  # waited for in any case: there is one reader
            if (found.table, found.after) == (table.name, after):
                return found
        return self._load(table, after, upto, limit)

    def read_ahead(self, table: Table, after: Callable[[], int], upto: int, limit: int) -> None:
        """Begin to read a batch in another thread; `after` is asked there."""
        self._ahead = self._in_thread(lambda: self._load(table, after(), upto, limit))

    def _load(self, table: Table, after: int, upto: int, limit: int) -> Batch:
        parts: list[Future[pa.Table]] = []
        last, count, size = after, 0, 0
        while count < limit and size < MAX_BYTES:
            asked = self._spans().asks(table, limit - count)
            span = self._span(table, last, upto, limit - count)
            if not span.rows:
                break
            parts.append(self._parse(table, span, alone=not parts and span.rows < asked))
            last, count, size = span.last, count + span.rows, size + len(span.lines)
        full = count >= limit or size >= MAX_BYTES
        return Batch(table.name, after, last, count, full, joined(table, [part.result() for part in parts]))

    def _parse(self, table: Table, span: Span, *, alone: bool) -> Future[pa.Table]:
        def parse() -> pa.Table:
            return arrow_of_lines(table, span.lines, span.hashes)

        return _done(parse) if alone else self._in_thread(parse) or _done(parse)

    def _span(self, table: Table, after: int, upto: int, limit: int) -> Span:
        """Read a span; one by one where that is what it takes.

        Raises:
            LedgerCorrupt: a row does not have its hash.
            LedgerError: it cannot be read.
        """
        found = self._spans().span_after(table, after, upto, limit)
        if found is not None:
            return found
        stored = self._ledger.stored_after(table, after, upto, limit, max_bytes=SPAN_BYTES)
        for row in stored:
            self._ledger.verify(row)
        lines = b"\n".join(row.text.encode() for row in stored)
        last = stored[-1].sequence if stored else after
        return Span(last, len(stored), lines, [row.hash or "" for row in stored])

    def _spans(self) -> SpanReader:
        if self._reader is None:
            with translated(self._ledger.path, "read"):
                self._reader = SpanReader(self._ledger.path)
        return self._reader

    def _in_thread(self, work: Callable[[], _T]) -> Future[_T] | None:
        """Begin in another thread; None: the interpreter ends, and starts none any more."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="redecide-drain")
        try:
            return self._threads.submit(work)
        except RuntimeError:
            return None


def _done(work: Callable[[], _T]) -> Future[_T]:
    """Do it now; what it raises is raised now, too."""
    future: Future[_T] = Future()
    future.set_result(work())
    return future
