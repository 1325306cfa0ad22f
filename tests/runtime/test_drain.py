"""The drain, exactly once: whoever else drains, wakes late, or was restored from a copy."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runtime.arrow import to_arrow
from runtime.drain import BATCH_ROWS, app_id, drain
from runtime.errors import CommitConflict, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.evidence import broken_links
from runtime.lake import VERSION_KEY, LakeStore
from runtime.ledger import Ledger
from runtime.testing import blob, context, decision, entity, entity_slice, execution, sample
from runtime.trace import CONTEXTS, DECISIONS, DRAINED, OUTCOMES, POLICIES, SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = (0, 2**62, 100_000)
STEPS = [f"{point}:{table.name}" for table in DRAINED for point in ("opened", "read", "written")]


def fill(ledger: Ledger, count: int = 3, tag: str = "") -> None:
    """Write rows of every drained table."""
    for number in range(count):
        name = f"{tag}{number}"
        contents = [context(name), entity(name), blob(name), (POLICIES, sample(POLICIES, row_hash=name))]
        contents.append(entity_slice([contents[1][1]["entity_hash"]]))
        made = decision(
            tenant=f"t/{number % 2}",
            context_hash=contents[0][1]["context_hash"],
            slice_hash=contents[-1][1]["slice_hash"],
        )
        ledger.commit(contents=contents, evidence=[(DECISIONS, made)])
        ledger.commit(evidence=[(OUTCOMES, execution(made))])


def assert_lake_is_ledger(ledger: Ledger, store: LakeStore) -> None:
    """Every row of the ledger is in the lake, as it was written, and once; the chain read from there is whole."""
    chain: list[tuple[str, Any]] = []
    for table in DRAINED:
        rows = [row for _, row in ledger.rows_after(table, *EVERYTHING)]
        found = store.read(table)
        keys = Counter(found[table.key].to_pylist())
        assert keys == Counter(row[table.key] for row in rows), table.name
        by_key = [(table.key, "ascending")]
        assert found.sort_by(by_key).equals(to_arrow(table, rows).sort_by(by_key)), table.name
        chain += [(table.name, row) for row in rows if "position" in row]
    assert broken_links(chain) == []


def test_everything_arrives_once(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    report = drain(ledger, store)
    assert report.rows == {table.name: 3 for table in DRAINED}
    assert (report.upto, report.attempts, report.holder) == (6, 7, None)
    assert_lake_is_ledger(ledger, store)
    again = drain(ledger, store)
    assert (again.rows, again.upto, again.attempts) == ({}, 6, 0)
    assert_lake_is_ledger(ledger, store)


def test_the_next_drain_takes_only_what_is_new(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    drain(ledger, store)
    fill(ledger, 4, "more")
    assert drain(ledger, store).rows == {table.name: 4 for table in DRAINED}
    assert_lake_is_ledger(ledger, store)


def test_an_empty_ledger_makes_no_tables(ledger: Ledger, store: LakeStore, tmp_path: Path) -> None:
    assert drain(ledger, store).rows == {}
    ledger.commit(contents=[context("x")])
    assert drain(ledger, store).rows == {"contexts": 1}
    assert [folder.name for folder in (tmp_path / "lake").iterdir()] == ["contexts"]


def test_large_ledgers_go_in_batches(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BATCH_ROWS > 1000
    monkeypatch.setattr("runtime.drain.BATCH_ROWS", 2)
    fill(ledger, 5)
    assert drain(ledger, store).attempts == 3 * len(DRAINED)
    assert_lake_is_ledger(ledger, store)


def test_no_row_arrives_before_what_it_refers_to(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)

    def check(step: str) -> None:
        if step != "leased":
            fill(ledger, 1, step)  # what is written meanwhile waits for the next drain
        held = {table.name: set(store.read(table)[table.key].to_pylist()) for table in DRAINED}
        rows = store.read(DECISIONS).to_pylist()
        assert {row["context_hash"] for row in rows} <= held["contexts"], step
        assert {row["slice_hash"] for row in rows} <= held["slices"], step
        assert {row["decision_id"] for row in store.read(OUTCOMES).to_pylist()} <= held["decisions"], step

    assert drain(ledger, store, at_step=check).rows == {table.name: 3 for table in DRAINED}
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)


# -- others drain, too -----------------------------------------------------------------------------------------


class Once:
    """Does something the first time a step is reached: a pause in which the world moves on."""

    def __init__(self, step: str, action: Any) -> None:
        self.step, self.action, self.done = step, action, False

    def __call__(self, step: str) -> None:
        if step == self.step and not self.done:
            self.done = True
            self.action()


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("step", ["leased", *STEPS])
def test_a_drainer_that_wakes_after_losing_its_lease_doubles_nothing(
    ledger: Ledger, store: LakeStore, tmp_path: Path, step: str, more: int
) -> None:
    fill(ledger)

    def meanwhile() -> None:
        with Ledger.open(ledger.path) as other:
            fill(other, more, "more")
            report = drain(other, LakeStore(tmp_path / "lake", write=True))
            assert report.holder is None

    zombie = Once(step, meanwhile)
    report = drain(ledger, store, lease_seconds=0, at_step=zombie)
    assert zombie.done
    assert_lake_is_ledger(ledger, store)
    if step.startswith(("opened", "read")):
        assert report.rows.get(step.partition(":")[2], 0) == 0  # refused, read again, found nothing left


def test_a_batch_read_before_another_drain_is_refused_by_delta(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    zombie = Once("read:decisions", lambda: drain(ledger, store))
    report = drain(ledger, store, lease_seconds=0, at_step=zombie)
    assert report.attempts == 6  # five tables of contents committed, `decisions` refused, nothing left after
    assert "decisions" not in report.rows
    assert_lake_is_ledger(ledger, store)


def test_threads_that_drain_at_once_leave_each_row_once(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger, 20)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            drain(ledger, store, lease_seconds=0)
        except BaseException as exc:  # noqa: BLE001 - shown below
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)


def test_a_held_lease_leaves_the_work_to_its_holder(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    holder = f"{socket.gethostname()}/{os.getpid()}/x"
    ledger.lease("drain", holder, 60)
    report = drain(ledger, store, wait_seconds=0.06)
    assert (report.holder, report.rows, report.attempts) == (holder, {}, 0)
    ledger.release("drain", holder)
    assert drain(ledger, store).rows
    assert drain(ledger, store).holder is None  # the lease was given back


def test_a_lease_of_a_dead_process_is_taken_at_once_that_of_another_host_is_not(
    ledger: Ledger, store: LakeStore
) -> None:
    fill(ledger)
    ledger.lease("drain", "elsewhere/1/x", 60)
    assert drain(ledger, store).holder == "elsewhere/1/x"
    ledger.release("drain", "elsewhere/1/x")
    ledger.lease("drain", f"{socket.gethostname()}/{2**22 + 1}/x", 60)
    assert drain(ledger, store).rows


def test_a_drain_that_fails_gives_its_lease_back(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)

    def fail() -> None:
        raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        drain(ledger, store, at_step=Once("read:contexts", fail))
    assert drain(ledger, store).holder is None
    assert_lake_is_ledger(ledger, store)


def test_ledgers_share_a_lake(ledger: Ledger, store: LakeStore, tmp_path: Path) -> None:
    fill(ledger)
    with Ledger.open(tmp_path / "other.sqlite") as other:
        fill(other)
        drain(ledger, store)
        drain(other, store)
        drain(ledger, store)
        positions = Counter(
            (row["writer"], row["position"])
            for table in (DECISIONS, OUTCOMES)
            for row in store.read(table, ["writer", "position"]).to_pylist()
        )
        assert positions == Counter((one.id, n) for one in (ledger, other) for n in range(1, 7))
    # Both hold the same contents: at least once across ledgers, one address.
    assert Counter(store.read(CONTEXTS)["context"].to_pylist()) == {"0": 2, "1": 2, "2": 2}


def test_maintenance_of_the_lake_does_not_make_the_drain_forget(ledger: Ledger, store: LakeStore) -> None:
    for number in range(3):
        fill(ledger, 2, str(number))
        drain(ledger, store)
    for table in DRAINED:
        handle = store.table(table)
        assert handle is not None
        handle.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
        handle.optimize.compact()
        handle.create_checkpoint()
        handle.cleanup_metadata()
        handle.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert drain(ledger, store).rows == {}
    fill(ledger, 2, "more")
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)


# -- refusals --------------------------------------------------------------------------------------------------


def alter(store: LakeStore) -> None:
    handle = store.table(CONTEXTS)
    assert handle is not None
    handle.alter.set_table_properties({"delta.checkpointInterval": "50"})


def test_a_refused_commit_starts_again_from_the_read(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    report = drain(ledger, store, at_step=Once("read:contexts", lambda: alter(store)))
    assert report.attempts == len(DRAINED) + 1
    assert_lake_is_ledger(ledger, store)


def test_a_table_that_never_stands_still_is_given_up(
    ledger: Ledger, store: LakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.drain.MAX_REFUSALS", 3)
    fill(ledger)
    tries: list[str] = []

    def disturb(step: str) -> None:
        if step == "read:contexts":
            tries.append(step)
            alter(store)

    with pytest.raises(CommitConflict):
        drain(ledger, store, at_step=disturb)
    assert len(tries) == 3
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)


def test_an_old_copy_of_a_ledger_is_refused(ledger: Ledger, store: LakeStore, tmp_path: Path) -> None:
    fill(ledger)
    copy = tmp_path / "copy.sqlite"
    for suffix in ("", "-wal"):
        shutil.copy(f"{ledger.path}{suffix}", f"{copy}{suffix}")
    fill(ledger, 2, "later")
    drain(ledger, store)
    with Ledger.open(copy) as restored, pytest.raises(LedgerCorrupt, match="old copy"):
        drain(restored, store)
    assert_lake_is_ledger(ledger, store)


def test_a_table_that_loses_what_was_just_committed_is_noticed(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    lose = Once("written:contexts", lambda: shutil.rmtree(store.location(CONTEXTS)))
    with pytest.raises(LedgerError, match="a moment ago"):
        drain(ledger, store, at_step=lose)
    drain(ledger, store)
    assert_lake_is_ledger(ledger, store)


def test_a_row_without_its_hash_stops_the_drain_before_its_batch(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    ledger._writer.connection.execute(
        "UPDATE decisions SET row = replace(row, 'reason', 'treason') WHERE position = 3"
    )
    with pytest.raises(LedgerCorrupt, match="position 3"):
        drain(ledger, store)
    assert store.read(DECISIONS).num_rows == 0
    assert store.read(OUTCOMES).num_rows == 0
    assert store.read(CONTEXTS).num_rows == 3


def test_a_lake_of_a_newer_schema_is_left_alone(ledger: Ledger, store: LakeStore) -> None:
    fill(ledger)
    handle = store.create(DECISIONS)
    handle.alter.set_table_properties({VERSION_KEY: str(SCHEMA_VERSION + 1)}, raise_if_not_exists=False)
    with pytest.raises(LedgerTooNew):
        drain(ledger, store)
    assert handle.transaction_version(app_id(ledger.id, DECISIONS)) is None


def test_a_lake_that_reads_only_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    with pytest.raises(LedgerError, match="write=True"):
        drain(ledger, LakeStore(tmp_path / "lake"))
