"""Statements that do in one what several did: they move what those moved, and refuse what those refused."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import actions, metering
from runtime.cycles import Attempts
from runtime.errors import ActionMoved, LedgerError
from runtime.ledger import Ledger
from runtime.ledger_state import CLAIM, Claim
from runtime.lifecycle import TRANSITIONS, State, after
from runtime.limits_file import MAX_PERIOD
from runtime.stops import Stops
from runtime.testing import context, decision
from runtime.trace import CONTEXTS, DECISIONS, ExecutionStatus
from runtime.usage import report_usage

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 30

# -- how an action ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", get_args(ExecutionStatus))
@pytest.mark.parametrize("state", [*TRANSITIONS])
def test_an_action_ends_as_the_table_says(state: State, status: ExecutionStatus) -> None:
    with sqlite3.connect(":memory:") as db:
        db.execute(actions.TABLES)
        db.execute("CREATE TABLE outcomes (decision_id TEXT, kind TEXT)")
        db.execute("INSERT INTO actions (decision_id, position, state) VALUES ('d', 1, ?)", (state,))
        db.execute("INSERT INTO actions (decision_id, position, state) VALUES ('other', 2, ?)", (state,))
        outcome = {"decision_id": "d", "status": status, "recorded_at": 7}
        stays: list[tuple[Any, ...]] = [("other", state, None)]
        try:
            expected = after(state, status)
        except KeyError:
            with pytest.raises(ActionMoved, match=f"cannot end as '{status}'"):
                actions.conclude(db, outcome)
            stays = [("d", state, None), *stays]
        else:
            actions.conclude(db, outcome)
            stays = [("d", expected, 7), *stays] if expected in TRANSITIONS else stays
        assert db.execute("SELECT decision_id, state, moved FROM actions ORDER BY 1").fetchall() == stays
        assert [*db.execute("SELECT * FROM outcomes")] == []


def test_an_action_ends_once() -> None:
    with sqlite3.connect(":memory:") as db:
        db.execute(actions.TABLES)
        db.execute("CREATE TABLE outcomes (decision_id TEXT, kind TEXT)")
        outcome = {"decision_id": "d", "status": "denied", "recorded_at": 7}
        actions.conclude(db, outcome)  # let nothing run: it may be given one ending
        db.execute("INSERT INTO outcomes VALUES ('d', 'execution')")
        for status in get_args(ExecutionStatus):
            with pytest.raises(ActionMoved, match="has ended"):
                actions.conclude(db, outcome | {"status": status})


# -- how a session's meters move -------------------------------------------------------------------------------

SPENDING = """
version = 2
[[budget]]
name = "cost"
per = "session"
measure = "cost_micros"
max = 12
[[loop]]
name = "same"
max_repeats = 2
"""
NEVER = metering._AS_READ.replace("WHERE", "WHERE 0 AND", 1)
WATCHING = """
@id("permit") permit(principal, action, resource);
@id("dear") forbid(principal, action, resource) when { context.session has cost_micros && context.session.cost_micros > 8 };
"""


def scripted(world: Any) -> list[Any]:
    """Calls of every ending, of sessions that begin, go on, spend, repeat themselves and are stopped."""
    spent = [0]
    world.body = lambda: report_usage(cost_micros=spent[0])
    found, stops = [], Stops(world.runtime.ledger)
    for number, (tool, session, cost, args) in enumerate(
        [
            ("pay", "s", 0, {}), ("pay", "s", 3, {"cents": 5}), ("pay", "s", 0, {"cents": 13}),
            ("look", "s", 0, {"n": 1}), ("look", "s", 0, {"n": 1}), ("look", "s", 0, {"n": 1}), ("look", "s", 0, {"n": 1}),
            ("pay", "t", 1, {}), ("pay", "s", 6, {"cents": 900}), ("pay", "s", 5, {}), ("pay", "s", 0, {"cents": 2}),
            ("pay", "t", 0, {"cents": 13}), ("look", "t", 0, {"n": 2}), ("look", "t", 0, {"n": 3}),
        ]
    ):  # fmt: skip
        if number in (7, 11):
            stops.set(tool="pay", reason="drill")
        if number in (8, 12):
            stops.lift()
        spent[0] = cost
        world.clock.pass_by(milliseconds=3)
        opened = world.session(session_id=session)
        code = world.ask(tool, opened, **args)
        found.append((code, opened.last_decision["session_state"], opened.last_decision["verdict"]))
    meters = "SELECT * FROM session_meters ORDER BY session_id"
    return [found, world.runtime.ledger.query(meters)]


@pytest.mark.parametrize("policies", [{}, {"policies": WATCHING}])
def test_the_one_statement_moves_what_the_several_moved(
    metered: Any, monkeypatch: pytest.MonkeyPatch, policies: dict[str, str]
) -> None:
    slow: list[int] = []
    real = metering._step_moved

    def moved(*given: Any) -> None:
        slow.append(1)
        real(*given)

    monkeypatch.setattr(metering, "_step_moved", moved)
    fast = scripted(metered(SPENDING, lake="fast", **policies))
    assert len(slow) == 3  # the first call of each session, and one under a stop
    monkeypatch.setattr(metering, "_AS_READ", NEVER)
    assert scripted(metered(SPENDING, lake="slow", **policies)) == fast
    assert len(slow) == 3 + len(fast[0])
    assert {code for code, *_ in fast[0]} >= {"permitted", "forbidden", "loop_detected", "stopped"}


def test_a_counter_nobody_looks_at_may_move_while_a_call_is_decided(metered: Any) -> None:
    """Then the one statement moves nothing, and the attempt is added all the same."""
    world = metered()
    session = world.session()
    assert world.ask("pay", session) == "permitted"
    commit, once = world.runtime.ledger.commit, [True]

    def moved(**given: Any) -> Any:
        if given.get("session") is not None and once:
            once.clear()
            commit(moves=[lambda db: db.execute("UPDATE session_meters SET failures = failures + 1")])
        return commit(**given)

    world.runtime.ledger.commit = moved
    assert world.ask("pay", session, cents=3) == "permitted"
    assert session.last_decision["step"] == 1
    ((failures, attempts),) = world.runtime.ledger.query("SELECT failures, attempts FROM session_meters")
    assert (failures, attempts.count('"')) == (1, 2 + 2 * 2)


def test_a_stop_set_while_a_call_is_decided_holds(metered: Any) -> None:
    world = metered()
    session = world.session()
    assert world.ask("pay", session) == "permitted"
    commit, once = world.runtime.ledger.commit, [True]

    def stopped(**given: Any) -> Any:
        if given.get("session") is not None and once:
            once.clear()
            Stops(world.runtime.ledger).set(tool="pay", reason="drill")
        return commit(**given)

    world.runtime.ledger.commit = stopped
    assert (world.ask("pay", session), world.ran) == ("stopped", 1)


# -- what is read on the writing connection --------------------------------------------------------------------


def test_a_glance_sees_what_others_have_committed(ledger: Ledger, path: Path) -> None:
    with Ledger.open(path) as other:
        for number in range(4):
            writer, reader = (ledger, other) if number % 2 else (other, ledger)
            writer.commit(claim=Claim(f"k{number}", "a", "d"))
            assert reader.claim(f"k{number}") == Claim(f"k{number}", "a", "d")
            assert reader.glance(CLAIM, ("none",)) == []


def test_a_glance_waits_for_nobody_who_commits(ledger: Ledger) -> None:
    standing, going = threading.Event(), threading.Event()

    def stand(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO leases VALUES ('l', 'h', 1)")
        standing.set()
        assert going.wait(PATIENCE)

    leader = threading.Thread(target=lambda: ledger.commit(moves=[stand]))
    leader.start()
    assert standing.wait(PATIENCE)
    try:
        assert ledger.glance("SELECT count(*) FROM leases") == [(0,)]  # what is not committed is not there
    finally:
        going.set()
        leader.join()
    assert ledger.glance("SELECT count(*) FROM leases") == [(1,)]


def test_a_glance_that_the_writing_connection_cannot_take_is_read_elsewhere(ledger: Ledger) -> None:
    class Busy:
        def execute(self, *_: Any) -> Any:
            raise sqlite3.OperationalError("database is locked")

    ledger.commit(claim=Claim("k", "a", "d"))
    real, ledger._writer.connection = ledger._writer.connection, Busy()  # type: ignore[assignment]
    try:
        assert ledger.claim("k") is not None
        with pytest.raises(LedgerError, match="no such table"):
            ledger.glance("SELECT * FROM nowhere")
    finally:
        ledger._writer.connection = real
    ledger._writer.refuse("it is closed")
    with pytest.raises(LedgerError, match="it is closed"):
        ledger.glance(CLAIM, ("k",))


def test_a_glance_leaves_no_transaction_and_the_chain_goes_on(ledger: Ledger, path: Path) -> None:
    """Looking through the writing connection must not hide from the next commit that somebody else moved the head."""
    with Ledger.open(path) as other:
        for number in range(6):
            rows = (ledger, other)[number % 2].commit(evidence=[(DECISIONS, decision())])
            ledger.glance(CLAIM, ("none",))
            assert not ledger._writer.connection.in_transaction
            assert rows[0]["position"] == number + 1
        assert ledger.head() == other.head()


# -- contents and attempts -------------------------------------------------------------------------------------


def test_any_number_of_contents_is_stored_once_each(ledger: Ledger) -> None:
    for number in (1, 15, 16, 17, 40):
        ledger._known.clear()
        ledger.commit(contents=[context(str(n)) for n in range(number)])
    rows = ledger.rows_after(CONTEXTS, 0, 2**62, 1000)
    assert [row["context"] for _, row in rows] == [str(n) for n in range(40)]


def _then(state: Attempts, signature: str) -> Attempts:
    """`Attempts.then` by its definition, without the shortcut."""
    before = (*state.matches, *(0,) * (len(state.recent) - len(state.matches)))
    pairs = zip(reversed(state.recent), before, strict=False)
    matches = tuple(matched + 1 if earlier == signature else 0 for earlier, matched in pairs)
    return Attempts((*state.recent, signature)[-MAX_PERIOD:], matches)


@given(st.text("abc", max_size=40))
def test_attempts_are_counted_by_their_definition(calls: str) -> None:
    state = expected = Attempts()
    for call in calls:
        state, expected = state.then(call), _then(expected, call)
        assert state == expected
        told = list(expected.matches)
        while told and not told[-1]:
            told.pop()
        assert state.recorded == told
