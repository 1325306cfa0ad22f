"""Each condition of the ledger's statements counts: keys and leases that expire, steps and meters of one session."""

from __future__ import annotations

from typing import Any

import pytest

from runtime import metering
from runtime.ledger import Claim, ClaimTaken, Ledger, SessionStep
from runtime.meters import MOST
from runtime.testing import decision
from runtime.trace import DECISIONS

NAMES = metering.COUNTERS
WHOSE = ("acme", "pay", 'Agent::"bot"', "m")


# -- keys that expire ------------------------------------------------------------------------------------------


def test_a_key_may_be_taken_anew_from_the_moment_it_expires_and_is_then_wholly_the_new_ones(
    ledger: Ledger,
) -> None:
    ledger.commit(claim=Claim("k", "a1", "d1", expires=100))
    with pytest.raises(ClaimTaken) as raised:
        ledger.commit(claim=Claim("k", "a2", "d2", expires=200, at=99))
    assert raised.value.claim == Claim("k", "a1", "d1", expires=100)
    ledger.commit(claim=Claim("k", "a2", "d2", expires=200, at=100))
    assert ledger.claim("k") == Claim("k", "a2", "d2", expires=200)
    with pytest.raises(ClaimTaken):
        ledger.commit(claim=Claim("k", "a3", "d3", expires=300, at=199))


def test_a_key_whose_action_is_open_is_not_taken_however_late(ledger: Ledger) -> None:
    """Open is the action of who holds the key; that of who comes says nothing."""
    holds, comes = decision(), decision()
    ledger.commit(evidence=[(DECISIONS, holds)], claim=Claim("k", "a", holds["decision_id"], expires=1))
    ledger.commit(evidence=[(DECISIONS, comes)])
    with pytest.raises(ClaimTaken):
        ledger.commit(claim=Claim("k", "b", comes["decision_id"], expires=9, at=5))
    ledger.commit(claim=Claim("free", "a", "no action", expires=1))
    ledger.commit(claim=Claim("free", "b", comes["decision_id"], expires=9, at=5))
    assert ledger.claim("free") == Claim("free", "b", comes["decision_id"], expires=9)


def test_a_lease_may_be_taken_at_the_moment_it_expires(ledger: Ledger) -> None:
    from runtime import ledger_state

    def take(who: str, now: int) -> str:
        return ledger._writer.run(lambda db: ledger_state.take_lease(db, "l", who, now, now + 10))

    assert [take("a", 0), take("b", 9), take("b", 10), take("a", 11)] == ["a", "a", "b", "b"]


# -- one session of one tenant ---------------------------------------------------------------------------------


def step(tenant: str, expected: int, *, ran: bool) -> SessionStep:
    return SessionStep(tenant=tenant, session_id="s", expected_step=expected, ran=ran, owner="me")


def test_a_step_moves_the_session_of_its_tenant_only(ledger: Ledger) -> None:
    ledger.commit(session=step("acme", 0, ran=False))
    ledger.commit(session=step("other", 0, ran=True))
    ledger.commit(session=step("acme", 1, ran=True))
    assert [ledger.session(tenant, "s")[:2] for tenant in ("acme", "other")] == [(2, 1), (1, 1)]


SESSIONS = (("acme", "l"), ("acme", "m"), ("acme", "n"), ("abba", "m"), ("zeta", "m"))


@pytest.fixture
def metered(ledger: Ledger) -> Ledger:
    """Sessions beside each other, each with a counter of 5 and no attempts."""

    def fill(db: Any) -> None:
        for who in SESSIONS:
            db.execute("INSERT INTO session_meters VALUES (?, ?, 5, 5, 5, 5, 5, '{}')", who)

    ledger.commit(moves=[fill])
    return ledger


def changed(ledger: Ledger, column: str, before: object) -> list[tuple[str, str]]:
    sql = f"SELECT tenant, session_id FROM session_meters WHERE {column} != ? ORDER BY 1, 2"
    return ledger.query(sql, (before,))


def attempt(ledger: Ledger, counters: tuple[int, ...]) -> int:
    def add(db: Any) -> int:
        return int(db.execute(metering._AS_READ, (*WHOSE, '{"*":[]}', *counters)).rowcount)

    return ledger._writer.run(add)


def test_an_attempt_is_added_to_its_session_only(metered: Ledger) -> None:
    assert attempt(metered, (5,) * len(NAMES)) == 1
    assert changed(metered, "attempts", "{}") == [("acme", "m")]


@pytest.mark.parametrize("index", range(len(NAMES)))
@pytest.mark.parametrize("moved", [4, 6])
def test_an_attempt_is_not_added_where_a_counter_went_up_or_down(
    metered: Ledger, index: int, moved: int
) -> None:
    read = tuple(moved if number == index else 5 for number in range(len(NAMES)))
    assert attempt(metered, read) == 0
    assert changed(metered, "attempts", "{}") == []


@pytest.mark.parametrize("name", NAMES)
def test_what_a_call_used_is_added_to_its_session_only_and_never_beyond_the_end(
    metered: Ledger, name: str
) -> None:
    add = metering._add((name,))
    metered.commit(moves=[lambda db: db.execute(add, (3, "acme", "m"))])
    assert changed(metered, name, 5) == [("acme", "m")]
    assert metered.query(f"SELECT {name} FROM session_meters WHERE tenant='acme' AND session_id='m'") == [
        (8,)
    ]
    metered.commit(moves=[lambda db: db.execute(add, (MOST, "acme", "m"))])
    assert metered.query(f"SELECT max({name}) FROM session_meters") == [(MOST,)]
