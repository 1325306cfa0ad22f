"""Spans and batches of the drain: the same rows as one by one, and nothing of what was not checked."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from runtime import drain_batches, ledger_bulk
from runtime.arrow import arrow_of_stored
from runtime.drain import drain
from runtime.drain_batches import Batches
from runtime.errors import LedgerCorrupt
from runtime.lake import LakeStore
from runtime.ledger import Ledger
from runtime.ledger_bulk import SpanReader
from runtime.testing import blob, context, decision, entity, entity_slice, execution, sample
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, OUTCOMES, POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runtime.ledger_state import Stored
    from runtime.trace import Table

END = 2**62
NASTY = 'quotes " and \\ and \n and \u2028 and 😀 and \x7f'


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[SpanReader]:
    opened = SpanReader(ledger.path)
    yield opened
    opened.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and spans of a few rows, always read ahead."""
    monkeypatch.setattr("runtime.drain.BATCH_ROWS", 3)
    monkeypatch.setattr("runtime.drain.LARGE_ROWS", 1)
    monkeypatch.setattr(ledger_bulk, "SPAN_ROWS", 2)
    monkeypatch.setattr(ledger_bulk, "MAX_ROWS", 2)


def fill(ledger: Ledger, count: int = 5, tag: str = "") -> None:
    for number in range(count):
        name = f"{tag}{number} {NASTY}"
        contents = [context(name), entity(name), blob(name), (POLICIES, sample(POLICIES, row_hash=name))]
        contents.append(entity_slice([contents[1][1]["entity_hash"]]))
        made = decision(
            tenant=f"t/{number % 2}", reason=name, context_hash=contents[0][1]["context_hash"],
            slice_hash=contents[-1][1]["slice_hash"],
        )  # fmt: skip
        ledger.commit(contents=contents, evidence=[(DECISIONS, made)])
        ledger.commit(evidence=[(OUTCOMES, execution(made))])


def alter(ledger: Ledger, sql: str, *values: object) -> None:
    ledger._writer.connection.execute(sql, values)


def stored(ledger: Ledger, table: Table) -> list[Stored]:
    return ledger.stored_after(table, 0, END, 100_000)


def in_lake(ledger: Ledger, store: LakeStore) -> None:
    """Every row of the ledger is in the lake once, column for column as parsed one by one."""
    for table in DRAINED:
        rows = stored(ledger, table)
        expected = arrow_of_stored(table, [row.text for row in rows], [row.hash for row in rows])
        order = [(table.key, "ascending")]
        assert store.read(table).sort_by(order).equals(expected.sort_by(order)), table.name


# -- spans -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", DRAINED, ids=lambda table: table.name)
def test_a_span_is_what_one_by_one_gives(ledger: Ledger, reader: SpanReader, table: Table) -> None:
    fill(ledger)
    rows = stored(ledger, table)
    for after in (0, rows[1].sequence):
        for limit in (1, 3, 100):
            span = reader.span_after(table, after, END, limit)
            mine = [row for row in rows if row.sequence > after][:limit]
            assert span is not None
            assert span.lines == b"\n".join(row.text.encode() for row in mine)
            assert span.hashes == [row.hash or row.check for row in mine]
            assert (span.last, span.rows) == (mine[-1].sequence, len(mine))


def test_a_span_ends_where_it_is_told_to(ledger: Ledger, reader: SpanReader) -> None:
    fill(ledger)
    rows = stored(ledger, DECISIONS)
    found = reader.span_after(DECISIONS, 0, rows[2].sequence, 100)
    assert found is not None
    assert (found.last, found.rows) == (rows[2].sequence, 3)
    assert reader.span_after(DECISIONS, rows[-1].sequence, END, 100) == (rows[-1].sequence, 0, b"", [])


DAMAGE = {
    "text": "UPDATE decisions SET row = replace(row, 'allow', 'block') WHERE position = 3",
    "hash": "UPDATE decisions SET hash = replace(hash, substr(hash, 1, 1), 'z') WHERE position = 3",
    "short hash": "UPDATE decisions SET hash = substr(hash, 2) WHERE position = 3",
    "hashes shifted": "UPDATE decisions SET hash = CASE position WHEN 1 THEN substr(hash, 1, 63) ELSE"
    " (SELECT substr(hash, 64) FROM decisions WHERE position = 1) || hash END WHERE position IN (1, 3)",
    "hashes swapped": "UPDATE decisions SET hash = (SELECT d.hash FROM decisions d WHERE d.position = 4 -"
    " decisions.position) WHERE position IN (1, 3)",
    "line break": "UPDATE decisions SET row = row || char(10) WHERE position = 3",
    "nothing": "UPDATE decisions SET row = '' WHERE position = 3",
    "bytes": "UPDATE decisions SET row = CAST(row || x'ff' AS TEXT) WHERE position = 3",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_of_damaged_rows_there_is_no_span(ledger: Ledger, reader: SpanReader, how: str) -> None:
    fill(ledger)
    alter(ledger, DAMAGE[how])
    assert reader.span_after(DECISIONS, 0, END, 100) is None
    assert reader.span_after(DECISIONS, 3, END, 100) is not None


def test_contents_from_before_they_had_hashes_are_read_one_by_one(
    ledger: Ledger, reader: SpanReader, store: LakeStore
) -> None:
    fill(ledger)
    alter(ledger, "UPDATE contents SET hash = NULL WHERE tbl = 'contexts' AND sequence > 6")
    assert reader.span_after(CONTEXTS, 0, END, 100) is None
    assert drain(ledger, store).rows == {table.name: 5 for table in DRAINED}
    in_lake(ledger, store)


def test_rows_too_large_to_join_are_read_one_by_one(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_bulk, "_MAX_JOINED", 6_000)
    fill(ledger, 3)
    ledger.commit(contents=[blob("x" * 20_000)])
    fill(ledger, 20, "more")
    reader = SpanReader(ledger.path)
    assert reader.span_after(DRAINED[4], 0, END, 100) is None
    reader.close()
    assert drain(ledger, store).rows["blobs"] == 24
    in_lake(ledger, store)


def test_spans_grow_and_shrink_with_the_length_of_rows(
    ledger: Ledger, reader: SpanReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_bulk, "SPAN_BYTES", 10_000)
    ledger.commit(contents=[context("x" * 40_000)])
    assert reader.asks(CONTEXTS, 1_000) == ledger_bulk.SPAN_ROWS
    reader.span_after(CONTEXTS, 0, END, 1_000)
    assert reader.asks(CONTEXTS, 1_000) == 1
    fill(ledger, 30)
    reader.span_after(CONTEXTS, 1, END, 1_000)
    assert 1 < reader.asks(CONTEXTS, 1_000) <= 100


# -- batches ---------------------------------------------------------------------------------------------------


def test_a_small_drain_starts_no_thread(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ledger)

    def refused(*_given: object) -> None:
        raise AssertionError("a thread for five rows")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    with Batches(ledger) as batches:
        assert batches.take(DECISIONS, 0, END, 100).rows == 5


@pytest.mark.usefixtures("hasty")
def test_many_small_spans_and_batches_bring_the_same(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger, 20)
    report = drain(ledger, store)
    assert report.rows == {table.name: 20 for table in DRAINED}
    assert report.attempts == 7 * len(DRAINED)
    in_lake(ledger, store)


@pytest.mark.usefixtures("hasty")
def test_what_was_read_ahead_is_dropped_where_the_lake_has_it(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger, 10)
    others: list[Any] = []

    def meanwhile(step: str) -> None:
        if step in {"written:contexts", "written:decisions"} and not others:
            others.append(drain(ledger, store, lease_seconds=0))

    report = drain(ledger, store, lease_seconds=0, at_step=meanwhile)
    assert report.rows["contexts"] == 3  # one batch; the second was read ahead, and was there by then
    assert others[0].rows["contexts"] == 7
    in_lake(ledger, store)


@pytest.mark.usefixtures("hasty")
def test_damage_that_is_read_ahead_stops_the_drain_when_it_is_due(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger, 10)
    alter(ledger, "UPDATE decisions SET row = replace(row, 'allow', 'block') WHERE position = 9")
    with pytest.raises(LedgerCorrupt, match="position 9"):
        drain(ledger, store)
    assert store.read(DECISIONS)["position"].sort().to_pylist() == [1, 3, 5]
    assert drain_batches.Batches(ledger).take(OUTCOMES, 0, END, 100).rows == 10


@pytest.mark.usefixtures("hasty")
def test_what_went_wrong_ahead_only_is_read_again(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ledger, 10)
    whole = Batches._load
    calls: list[bool] = []

    def load(self: Batches, table: Table, after: int, upto: int, limit: int) -> drain_batches.Batch:
        ahead = threading.current_thread() is not threading.main_thread()
        calls.append(ahead)
        if ahead:
            raise OSError("the disk was away for a moment")
        return whole(self, table, after, upto, limit)

    monkeypatch.setattr(Batches, "_load", load)
    assert drain(ledger, store).rows == {table.name: 10 for table in DRAINED}
    assert calls.count(True) > len(DRAINED)
    in_lake(ledger, store)


@pytest.mark.usefixtures("hasty")
def test_an_interpreter_that_ends_drains_without_threads(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ledger, 10)

    def refused(*_given: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    assert drain(ledger, store).rows == {table.name: 10 for table in DRAINED}
    in_lake(ledger, store)


def test_a_drain_leaves_no_connection_open(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[SpanReader] = []

    class Seen(SpanReader):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr(drain_batches, "SpanReader", Seen)
    fill(ledger)
    drain(ledger, store)
    assert len(opened) == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0]._db.execute("SELECT 1")
