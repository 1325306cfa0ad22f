"""The ledger: all or nothing, one chain whoever writes, and files it must not touch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from runtime.errors import CommitConflict, LedgerError
from runtime.evidence import broken_links, row_hash
from runtime.holders import is_alive
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionCounters, SessionStep
from runtime.testing import blob, context, decision, entity, execution
from runtime.trace import BLOBS, CONTEXTS, DECISIONS, ENTITIES, GENESIS, OUTCOMES, SCORES

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = (0, 2**62, 10_000)


def step(expected: int, *, ran: bool = True, session: str = "s", tenant: str = "t") -> SessionStep:
    return SessionStep(tenant=tenant, session_id=session, expected_step=expected, ran=ran, owner="me")


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
    ledger._writer.connection.set_trace_callback(statements.append)
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
    assert ledger.session("t", "s") == SessionCounters(next_step=3, calls=2, owner="me")
    assert ledger.session("u\x00", "s") == SessionCounters(next_step=1, calls=1, owner="me")
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
    ledger._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.commit(**_everything_but())
    log = path.with_name(path.name + "-wal").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    sizes = [int.from_bytes(log[at + 4 : at + 8], "big") for at in range(32, len(log), 24 + page)]
    assert len([size for size in sizes if size]) == 1  # frames that end a transaction
    assert ledger._writer.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_interrupt_after_the_commit_does_not_fork_the_chain(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.commit(evidence=[(DECISIONS, decision())])

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("runtime.ledger_state.Head.committed", interrupted)
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


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads of other tests; from 3.12 on
def test_a_fork_is_told_to_open_its_own(ledger: Ledger) -> None:
    """Also where it inherits the lock of a thread that was committing; and its end closes nothing of the parent's."""
    ledger.commit(evidence=[(DECISIONS, decision())])
    with ledger._writer._lock:
        pid = os.fork()
        if pid == 0:
            refused = 0
            for attempt in (ledger.commit, ledger.head, ledger.unfinished, ledger.extent):
                try:
                    attempt()
                except LedgerError as error:
                    refused += "fork" in str(error)
                except BaseException:  # noqa: BLE001 - the child must not run the rest of the tests
                    os._exit(100)
            ledger.close()
            os._exit(refused)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 4
    ledger.commit(evidence=[(DECISIONS, decision())])
    assert is_alive(ledger.path, ledger.holder.id)


def test_a_lease_has_one_holder_until_it_expires(ledger: Ledger) -> None:
    assert ledger.lease("drain", "a", 60) == "a"
    assert ledger.lease("drain", "b", 60) == "a"
    assert ledger.lease("drain", "a", 0) == "a"
    assert ledger.lease("drain", "b", 60) == "b"
    ledger.release("drain", "a")
    assert ledger.lease("drain", "c", 60) == "b"
    ledger.release("drain", "b")
    assert ledger.lease("drain", "c", 60) == "c"
