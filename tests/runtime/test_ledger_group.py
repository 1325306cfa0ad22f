"""Group commit: one sync for whoever comes at the same time, to each what it would have got alone.

Races are arranged, not waited for: the first commit stands still inside its transaction until the others have queued.
"""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ledger_writer
from runtime.errors import CommitConflict, CommitUncertain, LedgerError
from runtime.evidence import broken_links
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionStep
from runtime.testing import context, decision, execution
from runtime.trace import CONTEXTS, DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERYTHING = (0, 2**62, 10_000)
PATIENCE = 30


class Recording:
    """The real connection; counts transactions, and fails or interrupts where a test says so."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real
        self.statements: list[str] = []
        self.after: dict[str, Callable[[], None]] = {}

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        self.statements.append(sql)
        done = self.real.execute(sql, parameters)
        if sql in self.after:
            self.after.pop(sql)()
        return done

    def close(self) -> None:
        self.real.close()

    def count(self, sql: str) -> int:
        return self.statements.count(sql)


@pytest.fixture
def db(ledger: Ledger) -> Iterator[Recording]:
    real = ledger._writer.connection
    recording = Recording(real)
    ledger._writer.connection = recording  # type: ignore[assignment]
    yield recording
    ledger._writer.connection = real


class Crowd:
    """Threads whose commits are all queued behind one that stands still in its transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.going = threading.Event()
        self.standing = threading.Event()
        self.results: dict[str, Any] = {}
        self.threads: list[threading.Thread] = []

    def first(self, then: Callable[[sqlite3.Connection], object] = lambda _: None, **given: Any) -> None:
        """Begin to lead, in a thread of its own, and stand still."""

        def stand(db: sqlite3.Connection) -> None:
            self.standing.set()
            assert self.going.wait(PATIENCE)
            then(db)

        self._start("first", given | {"moves": [stand]})
        assert self.standing.wait(PATIENCE)

    def follow(self, name: str, **given: Any) -> None:
        """Queue one more."""
        before = len(self.ledger._writer._queue)
        self._start(name, given)
        until(lambda: len(self.ledger._writer._queue) == before + 1)

    def go(self) -> dict[str, Any]:
        self.going.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "stranded"
        return self.results

    def _start(self, name: str, given: dict[str, Any]) -> None:
        def commit() -> None:
            try:
                self.results[name] = self.ledger.commit(**given)
            except BaseException as error:  # noqa: BLE001 - what each thread gets is what is tested
                self.results[name] = error

        thread = threading.Thread(target=commit, daemon=True)
        self.threads.append(thread)
        thread.start()


@pytest.fixture
def crowd(ledger: Ledger) -> Crowd:
    return Crowd(ledger)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def step(expected: int, session: str = "s") -> SessionStep:
    return SessionStep(tenant="t", session_id=session, expected_step=expected, ran=True, owner="me")


def decisions(count: int) -> list[dict[str, Any]]:
    return [decision() for _ in range(count)]


def check_chain(ledger: Ledger, expected: list[str]) -> None:
    """The chain holds exactly these decisions, each once, whoever reads it."""
    with Ledger.open(ledger.path) as fresh:
        rows = [row for _, row in fresh.rows_after(DECISIONS, *EVERYTHING)]
        others = [row for _, row in fresh.rows_after(OUTCOMES, *EVERYTHING)]
        assert sorted(str(row["decision_id"]) for row in rows) == sorted(expected)
        chain = [("decisions", row) for row in rows] + [("outcomes", row) for row in others]
        assert broken_links(chain) == []
        assert fresh.head() == ledger.head()


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["decision_id"] for row in rows]


def test_who_queues_behind_a_commit_shares_the_next_one(ledger: Ledger, db: Recording, crowd: Crowd) -> None:
    made = decisions(9)
    crowd.first(evidence=[(DECISIONS, made[0])])
    for row in made[1:]:
        crowd.follow(row["decision_id"], evidence=[(DECISIONS, row)], contents=[context("same")])
    results = crowd.go()
    assert db.count("COMMIT") == 2
    chained = [results[name][0] for name in ("first", *ids(made[1:]))]
    assert [row["position"] for row in chained] == [*range(1, 10)]
    assert ids(chained) == ids(made)
    assert len(ledger.rows_after(CONTEXTS, *EVERYTHING)) == 1
    check_chain(ledger, ids(made))


def test_a_lone_commit_is_a_plain_transaction(ledger: Ledger, db: Recording) -> None:
    ledger.commit(evidence=[(DECISIONS, decision())])
    assert [sql for sql in db.statements if not sql.startswith(("INSERT", "SELECT", "PRAGMA"))] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


def test_one_that_fails_undoes_only_itself(ledger: Ledger, db: Recording, crowd: Crowd) -> None:
    known, taken = decision(), Claim("taken", "a", "d")
    ledger.commit(evidence=[(DECISIONS, known)], claim=taken, session=step(0))

    def broken(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO leases VALUES ('half', 'done', 1)")
        raise CommitConflict("moved")

    good = decisions(5)
    crowd.first(evidence=[(DECISIONS, good[0])])
    crowd.follow("a", evidence=[(DECISIONS, good[1])], session=step(1))
    crowd.follow("claim", evidence=[(DECISIONS, decision())], claim=Claim("taken", "a", "x"))
    crowd.follow("b", evidence=[(DECISIONS, good[2])], session=step(2), contents=[context("b")])
    crowd.follow("late", evidence=[(DECISIONS, decision())], session=step(2), claim=Claim("lost", "a", "x"))
    crowd.follow("double", evidence=[(DECISIONS, decision()), (DECISIONS, known)])
    crowd.follow("move", evidence=[(DECISIONS, decision())], contents=[context("lost")], moves=[broken])
    crowd.follow("sql", moves=[lambda db: db.execute("INSERT INTO leases VALUES (NULL, NULL, NULL)")])
    crowd.follow("c", evidence=[(DECISIONS, good[3]), (OUTCOMES, execution(good[3]))])
    crowd.follow("d", evidence=[(DECISIONS, good[4])], claim=Claim("fresh", "a", good[4]["decision_id"]))
    results = crowd.go()
    assert db.count("COMMIT") == 3  # the one before, the first, and the group
    kinds = {name: type(result) for name, result in results.items() if isinstance(result, Exception)}
    assert kinds.pop("claim") is ClaimTaken
    assert results["claim"].claim == taken
    assert kinds.pop("late").__name__ == "SessionMoved"
    assert kinds == {"double": ValueError, "move": CommitConflict, "sql": LedgerError}
    assert [row["position"] for name in "abcd" for row in results[name]] == [3, 4, 5, 6, 7]
    assert ledger.session("t", "s").next_step == 3
    assert ledger.claim("lost") is None
    assert ledger.claim("fresh") is not None
    assert ledger.lease("half", "me", 1) == "me"
    assert [row["context"] for _, row in ledger.rows_after(CONTEXTS, *EVERYTHING)] == ["b"]
    check_chain(ledger, [known["decision_id"], *ids(good)])


def test_of_a_whole_group_one_takes_the_claim(ledger: Ledger, crowd: Crowd) -> None:
    crowd.first()
    for number in range(6):
        crowd.follow(str(number), evidence=[(DECISIONS, decision())], claim=Claim("k", "a", str(number)))
    results = crowd.go()
    assert isinstance(results["0"], list)
    assert {type(results[str(number)]) for number in range(1, 6)} == {ClaimTaken}
    assert ledger.head()[0] == 1


def test_groups_are_bounded(
    ledger: Ledger, db: Recording, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_writer, "GROUP", 3)
    made = decisions(7)
    crowd.first()
    for row in made:
        crowd.follow(row["decision_id"], evidence=[(DECISIONS, row)])
    crowd.go()
    assert db.count("COMMIT") == 4  # 1, then 3 + 3 + 1
    check_chain(ledger, ids(made))


def _io_error() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    raise error


def test_a_sync_that_fails_is_uncertain_for_the_whole_group(
    ledger: Ledger, db: Recording, crowd: Crowd
) -> None:
    ledger.commit(claim=Claim("taken", "a", "d"))
    crowd.first()
    for name in "abc":
        crowd.follow(name, evidence=[(DECISIONS, decision())])
    crowd.follow("claim", claim=Claim("taken", "a", "x"))
    db.after["RELEASE member"] = lambda: db.after.update(COMMIT=_io_error)
    results = crowd.go()
    assert isinstance(results["first"], list)
    assert {type(results[name]) for name in "abc"} == {CommitUncertain}
    assert len({id(results[name]) for name in "abc"}) == 3  # an exception is of one thread
    assert isinstance(results["claim"], ClaimTaken)  # that one is certain
    with pytest.raises(LedgerError, match="disk failed"):
        ledger.commit()


def test_a_full_disk_is_told_to_the_whole_group_and_nothing_stays(
    ledger: Ledger, db: Recording, crowd: Crowd
) -> None:
    crowd.first()
    (pages,) = db.real.execute("PRAGMA page_count").fetchone()
    db.real.execute(f"PRAGMA max_page_count = {pages + 4}")
    for name in "ab":
        crowd.follow(name, evidence=[(DECISIONS, decision(args="x" * 200_000))])
    results = crowd.go()
    assert {type(results[name]) for name in "ab"} == {LedgerError}
    assert all("full" in str(results[name]) for name in "ab")
    db.real.execute("PRAGMA max_page_count = 1000000")
    made = decision()
    ledger.commit(evidence=[(DECISIONS, made)])
    check_chain(ledger, [made["decision_id"]])


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "committed"), [("BEGIN IMMEDIATE", False), ("SAVEPOINT member", False), ("COMMIT", True)]
)
def test_an_interrupted_leader_strands_and_doubles_nobody(
    ledger: Ledger, db: Recording, crowd: Crowd, where: str, *, committed: bool
) -> None:
    """The first to queue leads the group; it is interrupted right after one of its statements."""
    made = decisions(5)
    crowd.first()
    for row in made:
        crowd.follow(
            row["decision_id"], evidence=[(DECISIONS, row)], claim=Claim(row["decision_id"], "a", "d")
        )
    began = db.count("COMMIT")
    db.after["PRAGMA data_version"] = lambda: None
    # Only from the group on: the first commit has begun, so the next of each of these is the group's.
    db.after[where] = (lambda: db.after.update({where: _interrupt})) if where == "COMMIT" else _interrupt
    results = crowd.go()
    interrupted = [name for name, result in results.items() if isinstance(result, KeyboardInterrupt)]
    assert len(interrupted) == 1
    assert began == 0
    kept = [row["decision_id"] for row in made if committed or row["decision_id"] not in interrupted]
    assert all(isinstance(results[name], list) for name in results if name not in interrupted)
    check_chain(ledger, kept)
    ledger.commit(evidence=[(DECISIONS, decision())])
    assert ledger.head()[0] == len(kept) + 1


def test_one_that_failed_in_an_interrupted_group_gets_what_its_second_run_gives(
    ledger: Ledger, db: Recording, crowd: Crowd
) -> None:
    first_run = iter([CommitConflict("moved meanwhile")])

    def moved(_: sqlite3.Connection) -> None:
        for error in first_run:
            db.after["RELEASE member"] = _interrupt  # at the next member, whose thread does not lead
            raise error

    crowd.first()
    crowd.follow("leads")
    crowd.follow("moved", evidence=[(DECISIONS, decision())], moves=[moved])
    crowd.follow("last", evidence=[(DECISIONS, decision())])
    results = crowd.go()
    assert isinstance(results["leads"], KeyboardInterrupt)
    assert [results[name][0]["position"] for name in ("moved", "last")] == [1, 2]
    assert ledger.head()[0] == 2


def test_an_interrupted_leader_that_could_tell_nobody_leaves_them_in_doubt_not_waiting(
    ledger: Ledger, crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst place: after the COMMIT, before anybody was told. They must look; they are not told of success."""
    monkeypatch.setattr(ledger_writer, "LOST_SECONDS", 0.01)
    crowd.first()
    made = decisions(3)
    for row in made:
        crowd.follow(row["decision_id"], evidence=[(DECISIONS, row)])
    real, calls = ledger_writer._done, []

    def interrupted(group: list[Any]) -> None:
        calls.append(len(group))
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(group)

    monkeypatch.setattr(ledger_writer, "_done", interrupted)
    results = crowd.go()
    kinds = sorted(type(results[name]).__name__ for name in ids(made))
    assert kinds == ["CommitUncertain", "CommitUncertain", "KeyboardInterrupt"]
    check_chain(ledger, ids(made))
    ledger.commit(evidence=[(DECISIONS, decision())])


def test_a_lost_seat_is_found_again(ledger: Ledger, crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption between taking the seat and `try` leaves it taken by nobody."""
    monkeypatch.setattr(ledger_writer, "LOST_SECONDS", 0.01)
    assert ledger._writer._seat.acquire(blocking=False)
    ledger.commit(evidence=[(DECISIONS, decision())])
    assert not ledger._writer._seat.locked()


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread"
)
def test_ctrl_c_while_waiting_for_a_group_leaves_the_queue(ledger: Ledger, crowd: Crowd) -> None:
    made = decisions(2)
    crowd.first()
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        until(lambda: len(ledger._writer._queue) == 1)
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        ledger.commit(evidence=[(DECISIONS, made[0])])
    presser.join()
    assert not ledger._writer._queue
    crowd.follow("next", evidence=[(DECISIONS, made[1])])
    assert isinstance(crowd.go()["next"], list)
    check_chain(ledger, [made[1]["decision_id"]])


def test_closing_lets_the_group_end_and_refuses_who_waits(ledger: Ledger, crowd: Crowd) -> None:
    made = decision()
    crowd.first(evidence=[(DECISIONS, made)])
    crowd.follow("late", evidence=[(DECISIONS, decision())])
    closer = threading.Thread(target=ledger.close)
    closer.start()
    until(lambda: ledger._writer.refuses is not None)
    results = crowd.go()
    closer.join(PATIENCE)
    assert isinstance(results["first"], list)
    assert isinstance(results["late"], LedgerError)
    assert "closed" in str(results["late"])
    with Ledger.open(ledger.path) as fresh:
        assert ids([row for _, row in fresh.rows_after(DECISIONS, *EVERYTHING)]) == [made["decision_id"]]


def test_what_a_commit_raises_is_freed_with_its_last_reference(ledger: Ledger) -> None:
    """Conflicts are common under load: they must not wait for the collector of cycles."""
    import gc
    import weakref

    ledger.commit(claim=Claim("k", "a", "d"))
    ghost = None
    gc.collect()
    gc.disable()
    try:
        try:
            ledger.commit(claim=Claim("k", "a", "e"))
        except ClaimTaken as error:
            ghost = weakref.ref(error)
        assert ghost is not None
        assert ghost() is None
    finally:
        gc.enable()
