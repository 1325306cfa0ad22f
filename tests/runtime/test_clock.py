"""Clocks that jump, stop or lie: a typed error or a recorded block, never a decision on a time that is none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from runtime import Blocked, ClockError, RecordRefused, Runtime
from runtime.bundle import bundle_from_files
from runtime.lake import LakeStore
from runtime.trace import DECISIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FILES = {
    "p.cedar": """@id("permit") permit(principal, action, resource);
@id("after hours") forbid(principal, action, resource) when { context.now > datetime("2030-01-01") };""",
    "schema.cedarschema": """entity Agent; entity Thing;
action "act" appliesTo { principal: [Agent], resource: [Thing], context: {
  people?: { name: String }, args: { id: String } } };""",
    "context.toml": """
[sources.people]
kind = "callable"
[[facts]]
name = "people"
actions = ["act"]
source = "people"
key = { id = "args.id" }
fields = ["name"]
shared = true
max_age = "2h"
age_column = "seen"
""",
}


class World:
    """A runtime whose clock a test sets; its facts are of the hour they were written in."""

    def __init__(self, lake: Path) -> None:
        self.says: Any = NOW
        self.seen = NOW
        self.ran: list[str] = []
        self.lake = lake
        self.runtime = Runtime.open(
            bundle_from_files(FILES, "b"), lake=lake, sources={"people": self.person}, clock=self.clock
        )

        @self.runtime.tool(resource="Thing::{id}")
        def act(id: str) -> None:  # noqa: A002 - as the schema says
            self.ran.append(id)

        self.act = act

    def person(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": "Ada", "seen": self.seen}

    def clock(self) -> Any:
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says

    def session(self) -> Any:
        return self.runtime.session(principal="Agent::bot", tenant="acme")


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path / "lake")
    yield made
    made.runtime.ledger.close()


BAD = {
    "naive": datetime(2026, 11, 22, 12),  # noqa: DTZ001 - what is refused
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    "year 1": datetime.min.replace(tzinfo=UTC),
    "year 1, east": datetime.min.replace(tzinfo=timezone(HOUR)),
    "year 9999": datetime.max.replace(tzinfo=UTC),
    "year 9999, west": datetime.max.replace(tzinfo=timezone(-HOUR)),
    "a number": 1_795_000_000,
    "a text": "2026-11-22T12:00:00Z",
    "a date": date(2026, 11, 22),
    "nothing": None,
    "an error": OSError("no clock"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_time_that_is_none_decides_nothing(world: World, name: str) -> None:
    session = world.session()
    world.says = BAD[name]
    with pytest.raises(ClockError):
        session.call(world.act, "1")
    assert (world.ran, session.last_decision) == ([], None)
    with pytest.raises(ClockError):
        world.runtime.label("ok", "yes", session=session, source="test")
    world.says = NOW
    session.call(world.act, "1")
    assert world.ran == ["1"]


def test_a_clock_is_a_function(tmp_path: Path) -> None:
    with pytest.raises(ClockError, match="`clock` must be a function"):
        Runtime.open(bundle_from_files(FILES, "b"), lake=tmp_path, clock=NOW)  # type: ignore[arg-type]


def test_any_zone_is_recorded_in_utc(world: World) -> None:
    world.says = NOW.astimezone(timezone(-5 * HOUR))
    session = world.session()
    session.call(world.act, "1")
    assert session.last_decision["evaluated_at"] == int(NOW.timestamp()) * 1_000_000
    world.runtime.drain()
    (row,) = LakeStore(world.lake).read(DECISIONS, ["evaluated_at"]).to_pylist()
    assert row["evaluated_at"] == NOW


def test_a_clock_that_goes_back_an_hour(world: World) -> None:
    """Facts written meanwhile are of the future: they block, and the session goes on once the clock is right."""
    session = world.session()
    session.call(world.act, "1")
    world.says = NOW - HOUR
    with pytest.raises(Blocked, match="dated 3600 s ahead"):
        session.call(world.act, "2")
    assert (session.last_decision["decided_by"], session.last_decision["reason_code"]) == ("context", "stale")
    world.seen = NOW - HOUR
    session.call(world.act, "3")
    assert world.ran == ["1", "3"]
    world.runtime.drain()
    names = ["step", "evaluated_at", "position"]
    rows = LakeStore(world.lake).read(DECISIONS, names).sort_by("position").to_pylist()
    assert [row["step"] for row in rows] == [0, 1, 2]  # order is the ledger's, not the clock's
    assert rows[2]["evaluated_at"] < rows[0]["evaluated_at"]
    ended = LakeStore(world.lake).read(OUTCOMES, ["status"]).to_pylist()
    assert [row["status"] for row in ended] == ["succeeded", "succeeded"]


def test_a_clock_that_goes_ten_years_ahead(world: World) -> None:
    session = world.session()
    world.says = NOW + timedelta(days=3652)
    with pytest.raises(Blocked, match="stale"):
        session.call(world.act, "1")
    world.seen = world.says
    with pytest.raises(Blocked, match="after hours"):  # policies see the same time
        session.call(world.act, "2")
    world.says = world.seen = NOW
    session.call(world.act, "3")
    assert world.ran == ["3"]


# Labels, which are recorded at some time, too


@pytest.mark.parametrize("what", ["label", "value", "source", "decision_id"])
@pytest.mark.parametrize(
    "given", ["\ud800", 5, b"x", "x" * 100_000, object()], ids=lambda given: type(given).__name__
)
def test_a_label_that_cannot_be_stored_is_refused(world: World, what: str, given: Any) -> None:
    session = world.session()
    texts: dict[str, Any] = {"label": "ok", "value": "yes", "source": "test", "decision_id": None} | {
        what: given
    }
    with pytest.raises(RecordRefused, match=f"`{what}` must be"):
        world.runtime.label(**texts, session=session)
    world.runtime.label("ok", "yes", session=session, source="test")
