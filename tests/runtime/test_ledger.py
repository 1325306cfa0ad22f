"""The ledger: all or nothing, one chain whoever writes, and files it must not touch."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from runtime.errors import CommitConflict, CommitUncertain, LedgerCorrupt, LedgerError, LedgerTooNew
from runtime.evidence import broken_links, row_hash
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionCounters, SessionStep
from runtime.testing import blob, context, decision, entity, execution
from runtime.trace import BLOBS, CONTEXTS, DECISIONS, ENTITIES, GENESIS, OUTCOMES, SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERYTHING = (0, 2**62, 10_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path) as opened:
        yield opened


def step(expected: int, *, ran: bool = True, session: str = "s", tenant: str = "t") -> SessionStep:
    return SessionStep(tenant=tenant, session_id=session, expected_step=expected, ran=ran)


def chain_of(ledger: Ledger) -> list[tuple[str, dict[str, Any]]]:
    return [
        (table.name, row)
        for table in (DECISIONS, OUTCOMES)
        for _, row in ledger.rows_after(table, *EVERYTHING)
    ]


# -- what is written is what is read ---------------------------------------------------------------------------


def test_a_commit_is_read_back_by_id_with_every_column(ledger: Ledger) -> None:
    given = decision(tool="pay\x00\n\x1f💥", scopes=["a", "b"], errors=[{"policy": "p", "message": "m"}])
    (row,) = ledger.commit(evidence=[(DECISIONS, given)])
    found = ledger.decision(given["decision_id"])
    assert found is not None
    assert {name: value for name, value in found.items() if value is not None} == row
    assert found.keys() == {column.name for column in DECISIONS.columns}
    assert row | given == row
    assert ledger.decision("nobody") is None
    assert ledger.outcome_of(given["decision_id"]) is None


def test_rows_are_chained_across_tables_in_the_order_given(ledger: Ledger) -> None:
    assert ledger.head() == (0, GENESIS)
    first = decision()
    rows = ledger.commit(evidence=[(DECISIONS, first), (OUTCOMES, execution(first))])
    rows += ledger.commit(evidence=[(DECISIONS, decision())])
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert [row["prev_hash"] for row in rows] == [GENESIS, rows[0]["hash"], rows[1]["hash"]]
    assert {row["writer"] for row in rows} == {ledger.id}
    assert rows[1]["hash"] == row_hash("outcomes", rows[1])
    assert ledger.head() == (3, rows[2]["hash"])
    assert broken_links(chain_of(ledger)) == []


def test_the_last_execution_is_the_outcome_and_labels_are_not(ledger: Ledger) -> None:
    made = decision()
    ledger.commit(evidence=[(DECISIONS, made), (OUTCOMES, execution(made, status="in_doubt"))])
    ledger.commit(evidence=[(OUTCOMES, execution(made, status="succeeded"))])
    ledger.commit(
        evidence=[(OUTCOMES, execution(made, kind="label", status=None, label="origin", value="user"))]
    )
    outcome = ledger.outcome_of(made["decision_id"])
    assert outcome is not None
    assert outcome["status"] == "succeeded"


def test_contents_are_stored_once_and_counted_over_all_tables(ledger: Ledger, path: Path) -> None:
    ledger.commit(contents=[context("{}"), context("{}"), entity("a")])
    ledger.commit(contents=[entity("a"), context("[]")])
    with Ledger.open(path) as second:  # knows nothing in memory
        second.commit(contents=[context("{}"), entity("b")])
    contexts, entities = ledger.rows_after(CONTEXTS, *EVERYTHING), ledger.rows_after(ENTITIES, *EVERYTHING)
    assert [row["context"] for _, row in contexts] == ["{}", "[]"]
    assert [row["uid_id"] for _, row in entities] == ["a", "b"]
    order = [contexts[0], entities[0], contexts[1], entities[1]]  # one count over all, gaps allowed
    assert [number for number, _ in order] == sorted({number for number, _ in order})
    assert ledger.extent() == (0, entities[1][0])


def test_known_contents_are_not_asked_of_the_database_again(ledger: Ledger) -> None:
    ledger.commit(contents=[context("{}")])
    statements: list[str] = []
    ledger._writer.set_trace_callback(statements.append)
    ledger.commit(contents=[context("{}")])
    assert not [text for text in statements if "contents" in text]


def test_the_memory_of_known_contents_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.ledger.KNOWN_CONTENTS", 3)
    for number in range(10):
        ledger.commit(contents=[context(str(number))])
    assert len(ledger._known) <= 3
    assert len(ledger.rows_after(CONTEXTS, *EVERYTHING)) == 10


def test_a_blob_is_found_by_its_address(ledger: Ledger) -> None:
    table, row = blob('"' + "x" * 100_000 + '"')
    ledger.commit(contents=[(table, row)])
    assert ledger.blob(row["blob_hash"]) == row["data"]
    assert ledger.blob("0" * 64) is None


def test_rows_come_in_bounded_batches(ledger: Ledger) -> None:
    ledger.commit(contents=[blob(str(number)) for number in range(5)])
    assert [n for n, _ in ledger.rows_after(BLOBS, 1, 4, 2)] == [2, 3]
    assert [n for n, _ in ledger.rows_after(BLOBS, 3, 4, 9)] == [4]
    assert [row.sequence for row in ledger.stored_after(BLOBS, 0, 9, 9, max_bytes=1)] == [1]


def test_unfinished_are_the_calls_that_were_let_run_and_have_no_execution(ledger: Ledger) -> None:
    runs = [decision(), decision(verdict="modify"), decision(kind="resumed")]
    others = [
        decision(verdict="block"),
        decision(verdict="approve"),
        decision(kind="duplicate"),
        decision(kind="shadow"),
    ]
    ledger.commit(evidence=[(DECISIONS, row) for row in [*runs, *others]])
    ledger.commit(evidence=[(OUTCOMES, execution(runs[1]))])
    ledger.commit(evidence=[(OUTCOMES, execution(runs[0], kind="label"))])
    assert [row["decision_id"] for row in ledger.unfinished()] == [
        runs[0]["decision_id"],
        runs[2]["decision_id"],
    ]


# -- claims and sessions ---------------------------------------------------------------------------------------


def test_a_claim_is_taken_once_and_says_by_whom(ledger: Ledger, path: Path) -> None:
    claim = Claim("key", "args", "first")
    ledger.commit(claim=claim)
    assert ledger.claim("key") == claim
    assert ledger.claim("other") is None
    with Ledger.open(path) as second, pytest.raises(ClaimTaken) as caught:
        second.commit(claim=Claim("key", "args", "second"))
    assert caught.value.claim == claim


def test_a_session_moves_by_steps_and_counts_what_ran(ledger: Ledger) -> None:
    assert ledger.session("t", "s") == SessionCounters(next_step=0, calls=0)
    ledger.commit(session=step(0))
    ledger.commit(session=step(1, ran=False))
    ledger.commit(session=step(2))
    ledger.commit(session=step(0, tenant="u\x00"))
    assert ledger.session("t", "s") == SessionCounters(next_step=3, calls=2)
    assert ledger.session("u\x00", "s") == SessionCounters(next_step=1, calls=1)
    assert ledger.session("u", "s") == SessionCounters(next_step=0, calls=0)


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_step_that_was_taken_or_is_not_due_is_a_conflict(ledger: Ledger, expected: int) -> None:
    ledger.commit(session=step(0))
    ledger.commit(session=step(1))
    with pytest.raises(CommitConflict, match="is at step 2"):
        ledger.commit(session=step(expected))
    assert ledger.session("t", "s").next_step == 2


# -- all or nothing --------------------------------------------------------------------------------------------


def _everything_but(**bad: Any) -> dict[str, Any]:
    return {
        "contents": [context("new")],
        "evidence": [(DECISIONS, decision())],
        "claim": Claim("fresh", "a", "d"),
        "session": step(0, session="fresh"),
    } | bad


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"claim": Claim("taken", "a", "d")}, ClaimTaken),
        ({"session": step(0)}, CommitConflict),
        ({"evidence": [(DECISIONS, decision()), (DECISIONS, decision(decision_id="known"))]}, ValueError),
        ({"evidence": [(DECISIONS, decision()), (DECISIONS, decision(tool="\ud800"))]}, ValueError),
        ({"evidence": [(DECISIONS, decision()), (DECISIONS, decision(step="x"))]}, ValueError),
        ({"evidence": [(SCORES, {})]}, ValueError),
        ({"contents": [context("new"), (CONTEXTS, {"context_hash": "0" * 64, "context": "x"})]}, ValueError),
        ({"contents": [(DECISIONS, decision())]}, ValueError),
    ],
)
def test_a_commit_that_fails_leaves_nothing(
    ledger: Ledger, bad: dict[str, Any], error: type[Exception]
) -> None:
    ledger.commit(
        evidence=[(DECISIONS, decision(decision_id="known"))],
        claim=Claim("taken", "a", "known"),
        session=step(0),
    )
    before = ledger.head(), ledger.extent()
    with pytest.raises(error):
        ledger.commit(**_everything_but(**bad))
    assert (ledger.head(), ledger.extent()) == before
    assert ledger.claim("fresh") is None
    assert ledger.session("t", "fresh").next_step == 0
    ledger.commit(**_everything_but())  # and nothing is remembered that was undone
    assert len(ledger.rows_after(CONTEXTS, *EVERYTHING)) == 1
    assert broken_links(chain_of(ledger)) == []


def test_a_commit_is_one_transaction_in_full_synchronous_mode(ledger: Ledger, path: Path) -> None:
    ledger._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.commit(**_everything_but())
    log = path.with_name(path.name + "-wal").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    sizes = [int.from_bytes(log[at + 4 : at + 8], "big") for at in range(32, len(log), 24 + page)]
    assert len([size for size in sizes if size]) == 1  # frames that end a transaction
    assert ledger._writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_interrupt_after_the_commit_does_not_fork_the_chain(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.commit(evidence=[(DECISIONS, decision())])

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("runtime.ledger_state.Head.moved", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.commit(evidence=[(DECISIONS, decision())])
    made = decision()
    ledger.commit(evidence=[(DECISIONS, made), (OUTCOMES, execution(made))])
    assert ledger.head()[0] == 4
    assert broken_links(chain_of(ledger)) == []


# -- many writers ----------------------------------------------------------------------------------------------


def test_threads_and_handles_write_one_chain(ledger: Ledger, path: Path) -> None:
    with Ledger.open(path) as second, ThreadPoolExecutor(4) as pool:
        handles = [ledger, second, ledger, second]
        work = [pool.submit(_commit_many, handle, 40) for handle in handles]
        for future in work:
            future.result()
    assert ledger.head()[0] == 160
    assert broken_links(chain_of(ledger)) == []


def _commit_many(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.commit(contents=[context(str(number % 7))], evidence=[(DECISIONS, decision())])


def test_of_many_threads_one_takes_the_step(ledger: Ledger) -> None:
    barrier, results = threading.Barrier(6), []

    def take() -> None:
        barrier.wait()
        try:
            ledger.commit(evidence=[(DECISIONS, decision())], session=step(0), claim=Claim("k", "a", "d"))
            results.append("took")
        except CommitConflict:
            results.append("lost")

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["lost"] * 5 + ["took"]
    assert ledger.head()[0] == 1


def run_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_processes_that_start_at_once_share_one_new_ledger(path: Path) -> None:
    code = """
        import sys
        from runtime.ledger import Ledger
        from runtime.testing import decision
        from runtime.trace import DECISIONS
        with Ledger.open(sys.argv[1]) as ledger:
            for _ in range(25):
                ledger.commit(evidence=[(DECISIONS, decision())])
            print(ledger.id)
    """
    with ThreadPoolExecutor(4) as pool:
        done = [future.result() for future in [pool.submit(run_child, code, path) for _ in range(4)]]
    assert [child.stderr for child in done] == [""] * 4
    assert len({child.stdout for child in done}) == 1
    with Ledger.open(path, create=False) as ledger:
        assert ledger.head()[0] == 100
        assert broken_links(chain_of(ledger)) == []


def test_a_fork_is_told_to_open_its_own(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.ledger.os.getpid", lambda: -1)
    with pytest.raises(LedgerError, match="fork"):
        ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_lease_has_one_holder_until_it_expires(ledger: Ledger) -> None:
    assert ledger.lease("drain", "a", 60) == "a"
    assert ledger.lease("drain", "b", 60) == "a"
    assert ledger.lease("drain", "a", 0) == "a"
    assert ledger.lease("drain", "b", 60) == "b"
    ledger.release("drain", "a")
    assert ledger.lease("drain", "c", 60) == "b"
    ledger.release("drain", "b")
    assert ledger.lease("drain", "c", 60) == "c"


# -- files that are not as they should be ----------------------------------------------------------------------


def test_reopening_finds_the_same_chain(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(**_everything_but())
        before = ledger.id, ledger.head(), ledger.extent()
    with Ledger.open(path, create=False) as again:
        assert (again.id, again.head(), again.extent()) == before
        again.commit(evidence=[(DECISIONS, decision())])
        assert broken_links(chain_of(again)) == []


def test_folders_above_are_made_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a b%20" / "ü?#" / "ledger.sqlite"
    with pytest.raises(LedgerError, match="create=True"):
        Ledger.open(path, create=False)
    assert not path.parent.exists()
    Ledger.open(path).close()
    assert path.exists()


def test_a_closed_ledger_says_so(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.commit(evidence=[(DECISIONS, decision())])
    with pytest.raises(LedgerError, match="closed"):
        ledger.head()


def damage_text(path: Path) -> None:
    path.write_text("this is no database, whatever its name says\n" * 10)


def damage_short(path: Path) -> None:
    path.write_bytes(b"SQL")


def damage_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)


def damage_leaf(path: Path) -> None:
    content = bytearray(path.read_bytes())
    marker = content.index(b'"decision_id"', len(content) // 2)
    start = marker // 4096 * 4096
    content[start : start + 64] = b"\xff" * 64  # a page of rows that opening alone would not read
    path.write_bytes(content)


def damage_cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 4096 * 4096])


def damage_other(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()


def damage_row(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b"last-tool") == 1
    path.write_bytes(content.replace(b"last-tool", b"lost-tool"))


@pytest.mark.parametrize(
    "damage", [damage_text, damage_short, damage_page, damage_leaf, damage_cut, damage_other, damage_row]
)
def test_a_damaged_file_is_refused_and_its_bytes_are_untouched(path: Path, damage: Any) -> None:
    with Ledger.open(path) as ledger:
        _commit_many(ledger, 20)
        ledger.commit(evidence=[(DECISIONS, decision(tool="last-tool"))])
    damage(path)
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_row_changed_in_the_middle_is_found_when_it_is_read(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision(decision_id="d1", tool="last-tool"))])
        _commit_many(ledger, 3)
    damage_row(path)
    with Ledger.open(path) as ledger:
        with pytest.raises(LedgerCorrupt, match="position 1"):
            ledger.decision("d1")
        with pytest.raises(LedgerCorrupt, match="position 1"):
            ledger.rows_after(DECISIONS, *EVERYTHING)


@pytest.mark.parametrize(("version", "error"), [("2", LedgerTooNew), ("x", LedgerCorrupt)])
def test_a_ledger_of_another_version_is_refused_by_name(
    path: Path, version: str, error: type[Exception]
) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (version,))
    database.close()
    before = path.read_bytes()
    with pytest.raises(error, match=version):
        Ledger.open(path)
    assert path.read_bytes() == before


def test_a_half_made_ledger_is_finished(path: Path) -> None:
    path.touch()
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_full_disk_writes_nothing_and_can_be_freed(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.commit(evidence=[(DECISIONS, decision())])
        (pages,) = ledger._writer.execute("PRAGMA page_count").fetchone()
        ledger._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LedgerError, match="full"):
            _commit_many(ledger, 50)
        kept = ledger.head()[0]
        ledger._writer.execute("PRAGMA max_page_count = 1000000")
        _commit_many(ledger, 3)
        assert ledger.head()[0] == kept + 3
        assert broken_links(chain_of(ledger)) == []


def test_a_disk_that_refuses_the_log_fails_closed(path: Path) -> None:
    """A file size limit makes the log's next write fail, as a quota does."""
    code = """
        import os, resource, sys
        from runtime.errors import LedgerError
        from runtime.ledger import Ledger
        from runtime.testing import decision
        from runtime.trace import DECISIONS
        with Ledger.open(sys.argv[1]) as ledger:
            ledger.commit(evidence=[(DECISIONS, decision())])
            size = os.path.getsize(sys.argv[1] + "-wal")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30_000, resource.RLIM_INFINITY))
            acknowledged = 1
            try:
                while True:
                    ledger.commit(evidence=[(DECISIONS, decision())])
                    acknowledged += 1
            except LedgerError as error:
                print(type(error).__name__, acknowledged)
    """
    child = run_child(code, path)
    assert child.stderr == ""
    name, acknowledged = child.stdout.split()
    assert name in {"LedgerError", "CommitUncertain"}
    with Ledger.open(path) as ledger:
        assert int(acknowledged) <= ledger.head()[0] <= int(acknowledged) + (name == "CommitUncertain")
        assert broken_links(chain_of(ledger)) == []


def test_a_failed_sync_is_uncertain_and_stops_the_handle(ledger: Ledger) -> None:
    ledger.commit(evidence=[(DECISIONS, decision())])

    class FailingSync:
        """The real connection, but for a COMMIT whose sync fails."""

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real, self.in_transaction = real, False

        def execute(self, sql: str, parameters: Any = ()) -> Any:
            done = self.real.execute(sql, parameters)
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
            return done

    real, ledger._writer = ledger._writer, FailingSync(ledger._writer)  # type: ignore[assignment]
    try:
        with pytest.raises(CommitUncertain, match="reopen"):
            ledger.commit(evidence=[(DECISIONS, decision())])
        with pytest.raises(LedgerError, match="disk failed"):
            ledger.commit(evidence=[(DECISIONS, decision())])
    finally:
        ledger._writer = real
    with Ledger.open(ledger.path) as again:
        assert again.head()[0] == 2  # this time it was there


def test_a_locked_file_is_a_conflict_not_a_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.ledgerfile.BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CommitConflict, match="safe to retry"):
            ledger.commit(evidence=[(DECISIONS, decision())])
        other.execute("ROLLBACK")
        other.close()
        ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_copy_of_the_files_at_any_commit_is_a_ledger(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    """What a crash of the process leaves behind: the file and its log as they are."""
    for number in range(1, 6):
        ledger.commit(evidence=[(DECISIONS, decision())], claim=Claim(str(number), "a", "d"))
        copy = tmp_path / f"copy{number}.sqlite"
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        with Ledger.open(copy, create=False) as found:
            assert found.head() == ledger.head()
            assert found.claim(str(number)) is not None
