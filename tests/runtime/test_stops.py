"""Emergency stops: set by anybody who has the ledger, obeyed by every process at its next decision."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import Blocked, GovernanceError
from runtime.ledger import Ledger
from runtime.stops import FIND, TABLES, Stop, Stops, user


def stop(ledger: Ledger, **what: Any) -> Stop:
    everything = not {"tenant", "tool", "agent"} & what.keys()
    given: dict[str, Any] = {"reason": "fire", "by": "ops", "everything": everything}
    return Stops(ledger).set(**(given | what))


@pytest.mark.parametrize(
    ("what", "obeyed"),
    [
        ({}, {"pay", "look", "other agent", "other tenant"}),
        ({"tool": "pay"}, {"pay", "other agent", "other tenant"}),
        ({"tenant": "acme"}, {"pay", "look", "other agent"}),
        ({"agent": 'Agent::"bot"'}, {"pay", "look", "other tenant"}),
        ({"tenant": "acme", "tool": "pay"}, {"pay", "other agent"}),
        ({"tenant": "zeta", "tool": "look"}, set()),
    ],
)
def test_what_a_stop_names_is_stopped_and_nothing_else(metered: Any, what: Any, obeyed: set[str]) -> None:
    world = metered()
    calls = {
        "pay": ("pay", world.session()),
        "look": ("look", world.session()),
        "other agent": ("pay", world.session(session_id="a", principal="Agent::other")),
        "other tenant": ("pay", world.session(tenant="zeta")),
    }
    found = stop(world.runtime.ledger, **what)
    codes = {name: world.ask(tool, session) for name, (tool, session) in calls.items()}
    assert {name for name, code in codes.items() if code == "stopped"} == obeyed
    world.runtime.stops.lift(found)
    assert {world.ask(tool, session) for tool, session in calls.values()} == {"permitted"}


def test_the_reason_says_who_stopped_what_and_why(metered: Any) -> None:
    world = metered()
    stop(world.runtime.ledger, tool="pay", reason="double bookings", by="kim")
    with pytest.raises(
        Blocked, match=r"emergency stop of tool 'pay' by kim: double bookings \(stopped, by limits\)"
    ):
        world.session().call("pay", order="o")
    assert world.ran == 0


def test_a_stop_that_is_set_while_a_call_is_decided_holds(metered: Any) -> None:
    """It is set after the inputs were read and before the decision commits."""
    world = metered()
    ledger, commit = world.runtime.ledger, world.runtime.ledger.commit

    def slow(**what: Any) -> Any:
        if what.get("session") is not None and not list(Stops(ledger)):
            ledger.commit = commit
            stop(ledger)
        return commit(**what)

    ledger.commit = slow
    session = world.session()
    assert world.ask("pay", session) == "stopped"
    assert world.ran == 0
    assert session.last_decision["step"] == 0  # decided again, and recorded once


CHILD = """
import sys
from runtime.ledger import Ledger
from runtime.stops import Stops
with Ledger.open(sys.argv[1], create=False) as ledger:
    Stops(ledger).set(tool="pay", reason="from afar", by="other")
"""


def test_another_process_stops_a_running_one(metered: Any) -> None:
    world = metered()
    assert world.ask("pay") == "permitted"
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(world.runtime.ledger.path)]
    subprocess.run(command, check=True, timeout=60)
    assert world.ask("pay") == "stopped"


def test_stops_are_kept_after_they_were_lifted(ledger: Ledger) -> None:
    stops = Stops(ledger)
    one, two = stop(ledger, tool="pay"), stop(ledger)
    assert list(stops) == [one, two]
    (lifted,) = stops.lift(one, by="kim")
    assert (lifted.lifted_by, lifted.reason, lifted.lifted_at is not None) == ("kim", "fire", True)
    assert list(stops) == [two]
    assert stops.history() == [lifted, two]
    assert stops.lift(one.stop_id, by="again") == []
    with pytest.raises(GovernanceError, match="there is no emergency stop 'nope'"):
        stops.lift(two, "nope")
    assert list(stops) == [two]  # all or nothing
    assert [each.stop_id for each in stops.lift()] == [two.stop_id]
    assert list(stops) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reason": ""}, "`reason` of an emergency stop must be a text"),
        ({"tool": ""}, "`tool` of an emergency stop must be a text"),
        ({"by": "\ud800"}, "`by` of an emergency stop must be a text"),
        ({"tenant": 5}, "`tenant` of an emergency stop must be a text"),
        ({"agent": "bot"}, "must be `Type::name`, got 'bot'"),
        ({"everything": False}, "say what to stop"),
        ({"everything": True, "tool": "pay"}, "say what to stop"),
    ],
)
def test_what_says_nothing_is_refused(ledger: Ledger, wrong: Any, message: str) -> None:
    with pytest.raises(GovernanceError, match=message):
        stop(ledger, **wrong)
    assert list(Stops(ledger)) == []


def test_who_sets_it_is_the_user_of_the_process_unless_said(ledger: Ledger) -> None:
    made = Stops(ledger).set(agent="Agent::bot", reason="x")
    assert list(Stops(ledger)) == [made]
    assert made.set_by == user()
    assert str(made) == "agent 'Agent::\"bot\"'"


NAMES = st.sampled_from(["a", "b"])
PARTS = st.tuples(st.none() | NAMES, st.none() | NAMES, st.none() | NAMES)


@given(st.lists(PARTS, max_size=4), st.tuples(NAMES, NAMES, NAMES))
def test_a_call_is_stopped_if_all_that_some_stop_names_matches(
    stops: list[Any], call: tuple[str, str, str]
) -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(TABLES)
    for number, each in enumerate(stops):
        row = (str(number), *each, "r", "b", 0)
        db.execute("INSERT INTO stops VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL)", row)
    expected = any(all(n is None or n == c for n, c in zip(each, call, strict=True)) for each in stops)
    assert bool(db.execute(FIND, call).fetchall()) == expected
    db.execute("UPDATE stops SET lifted_at = 1")
    assert not db.execute(FIND, call).fetchall()
