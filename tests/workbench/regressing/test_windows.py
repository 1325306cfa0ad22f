"""Windows of nights: what a plan says equals what a slow reading of the same rows says, whatever the log is like."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime import trace
from runtime.evidence import chain
from runtime.lake import LakeStore
from runtime.testing import MOMENT, decision, sample
from workbench.errors import ColumnUnknown, PinUnreachable
from workbench.lake import Lake, open_lake
from workbench.regressing.job import Window
from workbench.regressing.windows import Look, Plan, plan, planned_again

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BEGAN = datetime.fromtimestamp(MOMENT / 1e6, UTC)
MINUTE = 60_000_000
NOW = BEGAN + timedelta(minutes=400)
LEDGERS = ("a", "b", "c")
GAP = 150
"""Position at which ledger `c` loses a row in every other log."""


class Log(NamedTuple):
    """A lake, and the very rows that are in it."""

    lake: Lake
    rows: list[dict[str, Any]]


def generated(seed: int) -> list[tuple[trace.Table, dict[str, Any]]]:
    """Rows of three ledgers: sessions of tenants that share session ids, over ledgers, with whatever came late."""
    chance = random.Random(seed)
    ends = dict.fromkeys(LEDGERS, (0, trace.GENESIS))
    made: list[dict[str, Any]] = []
    found = []

    def drained(table: trace.Table, writer: str, row: dict[str, Any]) -> None:
        position, before = ends[writer]
        whole = chain(table, row, writer, position + 1, before)
        ends[writer] = (position + 1, str(whole["hash"]))
        found.append((table, whole))

    for minute in range(360):
        writer = chance.choice(LEDGERS if minute > 60 else LEDGERS[:2])  # `c` comes later
        tenant, session = chance.choice("xy"), f"s{chance.randrange(24)}"
        kind = chance.choice(["call"] * 5 + ["shadow", "resumed"])
        match chance.choice(["decision", "decision", "execution", "label", "approval", "session"]):
            case "decision":
                at = MOMENT + (minute - chance.choice([0, 0, 0, 90])) * MINUTE  # some are drained long after
                row = decision(tenant=tenant, session_id=session, kind=kind, decided_at=at)
                made.append(row)
                drained(trace.DECISIONS, writer, row)
            case "session":
                row = sample(
                    trace.OUTCOMES, kind="label", tenant=tenant, session_id=session, label="scenario"
                )
                drained(trace.OUTCOMES, writer, row | {"value": "honest"})
            case what if made:
                of = chance.choice(made)
                same = {name: of[name] for name in ("decision_id", "session_id", "tenant")}
                more = {"label": "origin", "value": "user"} if what == "label" else {"status": "succeeded"}
                drained(trace.OUTCOMES, writer, sample(trace.OUTCOMES, kind=what, **same, **more))
    return found


@pytest.fixture(scope="module", params=range(3))
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Log:
    return written(generated(request.param), tmp_path_factory.mktemp("log"), torn=request.param % 2 == 1)


def written(rows: list[tuple[trace.Table, dict[str, Any]]], folder: Path, *, torn: bool) -> Log:
    store = LakeStore(str(folder), write=True)
    kept = [
        (table, row) for table, row in rows if not (torn and row["writer"] == "c" and row["position"] == GAP)
    ]
    for table in (trace.DECISIONS, trace.OUTCOMES):
        store.append(table, [row for each, row in kept if each is table])
    return Log(open_lake(folder), [row | {"table": table.name} for table, row in kept])


def slowly(  # noqa: C901 - on purpose in one piece, as it would be said
    log: Log, to: Mapping[str, int], seen: Sequence[Look], window: Window, *, only: str | None
) -> tuple[list[str], dict[tuple[str, str], tuple[int, int, int, int]]]:
    """What a plan is to say, row by row: the ids in the window; touched sessions with night and counts."""
    there = [row for row in log.rows if row["position"] <= to.get(row["writer"], 0)]
    ours = [
        row
        for row in there
        if row["table"] == "decisions" and row["kind"] != "shadow" and only in (None, row["tenant"])
    ]
    since, until = window.stretch(NOW)

    def within(row: dict[str, Any], since: datetime | None, until: datetime | None) -> bool:
        at = datetime.fromtimestamp(row["decided_at"] / 1e6, UTC)
        return (since is None or since <= at) and (until is None or at < until)

    def after(row: dict[str, Any], pin: Mapping[str, int]) -> bool:
        return int(row["position"]) > pin.get(row["writer"], 0)

    def night(row: dict[str, Any]) -> int | None:
        return next(
            (
                look.night
                for look in seen
                if not after(row, look.range.to)
                and after(row, look.range.after)
                and within(row, *look.stretch)
            ),
            None,
        )

    begin: Mapping[str, int] = {}
    if window.mode == "new":
        begin = seen[-1].range.to if seen else (to if window.first == "new" else {})
    new = [row["decision_id"] for row in ours if after(row, begin) and within(row, since, until)]
    if not seen:
        return sorted(new), {}
    last = seen[-1].range.to
    nights = {row["decision_id"]: found for row in ours if (found := night(row)) is not None}
    first: dict[tuple[str, str], int] = {}
    for row in ours:
        if row["decision_id"] in nights:
            key = row["tenant"], row["session_id"]
            first[key] = min(nights[row["decision_id"]], first.get(key, 10**9))
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    looked = [(since, until), *(look.stretch for look in seen)]
    for row in there:
        key = row["tenant"], row["session_id"]
        if key not in first or not after(row, last):
            continue
        if row["table"] == "decisions":
            if row in ours and any(within(row, *each) for each in looked):
                counts[key]["decisions"] += 1
        elif row.get("decision_id") in nights or ("decision_id" not in row and row["kind"] == "label"):
            counts[key]["labels" if row["kind"] == "label" else "outcomes"] += 1
    touched = {
        key: (first[key], found["labels"], found["outcomes"], found["decisions"])
        for key, found in counts.items()
        if found.total()
    }
    return sorted(new), touched


def ids(lake: Lake | None) -> list[str]:
    if lake is None:
        return []
    return sorted(lake.history.select("decision_id").collect().to_series().to_list())


def touched_of(found: Plan) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    return {(tenant, session): tuple(rest) for tenant, session, *rest in found.touched.iter_rows()}


WINDOWS = st.sampled_from(
    [
        Window(),
        Window(first="new"),
        Window(first=BEGAN + timedelta(minutes=50)),
        Window(mode="time", last=timedelta(hours=2)),
        Window(mode="time", since=BEGAN + timedelta(minutes=100), until=BEGAN + timedelta(minutes=200)),
        Window(mode="time", until=BEGAN + timedelta(minutes=150)),
    ]
)


@pytest.mark.slow
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    cuts=st.lists(st.tuples(*[st.integers(0, 100)] * 3), min_size=1, max_size=4),
    window=WINDOWS,
    only=st.sampled_from([None, None, "x"]),
)
def test_a_plan_says_what_a_slow_reading_says(
    log: Log, cuts: list[tuple[int, ...]], window: Window, only: str | None
) -> None:
    """Several nights, each drained further: windows, touched sessions, and the same again after a crash."""
    ends = log.lake.pins.ledgers
    chosen = None if only is None else pl.col("tenant") == only
    seen: list[Look] = []
    reached = dict.fromkeys(ends, 0)
    for night, cut in enumerate(cuts, 1):
        reached = {
            writer: max(reached[writer], ends[writer] * part // 100)
            for writer, part in zip(LEDGERS, cut, strict=True)
        }
        to = {writer: position for writer, position in reached.items() if position}
        found = plan(log.lake.at(to), seen, window=window, now=NOW, chosen=chosen)
        new, touched = slowly(log, to, seen, window, only=only)
        assert ids(found.new(log.lake)) == new
        assert (found.window.decisions, found.window.to) == (len(new), to)
        assert touched_of(found) == touched
        look = Look(night=night, range=found.window, stretch=found.stretch)
        again = planned_again(log.lake, seen, look, chosen=chosen)
        assert (again.window, again.stretch) == (found.window, found.stretch)
        assert again.touched.equals(found.touched)
        whole(log, found, look, only)
        seen.append(look)


def whole(log: Log, found: Plan, look: Look, only: str | None) -> None:
    """What is looked at again: of touched sessions, exactly what some window held, this one included."""
    sessions = set(touched_of(found))
    wanted = set()
    for each in (*found.seen, look):
        for row in log.rows:
            at = datetime.fromtimestamp(row.get("decided_at", 0) / 1e6, UTC)
            begin, end = each.stretch
            if (
                row["table"] == "decisions"
                and row["kind"] != "shadow"
                and only in (None, row["tenant"])
                and (row["tenant"], row["session_id"]) in sessions
                and row["position"] <= look.range.to.get(row["writer"], 0)
                and row["position"] > found.seen[0].range.after.get(row["writer"], 0)
                and (begin is None or begin <= at)
                and (end is None or at < end)
            ):
                wanted.add(row["decision_id"])
    assert ids(found.again(log.lake)) == sorted(wanted)


def test_new_windows_neither_skip_nor_double_a_decision(log: Log) -> None:
    """Over nights of any length, every decision is in exactly one window."""
    ends, seen, all_ = log.lake.pins.ledgers, list[Look](), list[str]()
    for night, part in enumerate((0.2, 0.2, 0.5, 1), 1):
        to = {writer: int(end * part) for writer, end in ends.items() if int(end * part)}
        found = plan(log.lake.at(to), seen, window=Window(), now=NOW)
        all_ += ids(found.new(log.lake))
        seen.append(Look(night=night, range=found.window))
    assert sorted(all_) == ids(log.lake)
    assert seen[1].range.decisions == seen[1].range.sessions == 0, (
        "nothing was drained before the second night"
    )
    assert seen[1].range.first is None


def test_a_window_says_what_is_in_it(log: Log) -> None:
    found = plan(log.lake, [], window=Window(), now=NOW).window
    ours = [row for row in log.rows if row["table"] == "decisions" and row["kind"] != "shadow"]
    ours = [row for row in ours if row["position"] <= log.lake.pins.ledgers[row["writer"]]]
    times = sorted(row["decided_at"] for row in ours)
    assert found.sessions == len({(row["tenant"], row["session_id"]) for row in ours})
    assert found.first == datetime.fromtimestamp(times[0] / 1e6, UTC).isoformat()
    assert found.last == datetime.fromtimestamp(times[-1] / 1e6, UTC).isoformat()
    assert found.watermark == sum(log.lake.pins.ledgers.values())


def test_a_series_that_begins_after_what_is_there_says_so(log: Log) -> None:
    """`first = "new"`: an empty window that is kept, so that the next one is what came after it."""
    window, ends = Window(first="new"), log.lake.pins.ledgers
    half = {writer: end // 2 for writer, end in ends.items()}
    first = plan(log.lake.at(half), [], window=window, now=NOW)
    assert (first.begins, first.window.decisions, first.window.to) == (True, 0, half)
    second = plan(log.lake, [Look(night=1, range=first.window)], window=window, now=NOW)
    assert (second.begins, second.window.after) == (False, half)
    assert second.window.decisions > 0
    assert not plan(log.lake, [], window=Window(), now=NOW).begins


def test_late_labels_reopen_the_night_they_touch(tmp_path: Path) -> None:
    rows = generated(7)
    end = {writer: max(row["position"] for _, row in rows if row["writer"] == writer) for writer in LEDGERS}
    of = next(row for table, row in rows if table is trace.DECISIONS and row["kind"] == "call")
    late = sample(
        trace.OUTCOMES, kind="label", label="origin", value="attack",
        **{name: of[name] for name in ("decision_id", "session_id", "tenant")},
    )  # fmt: skip
    rows.append((trace.OUTCOMES, chain(trace.OUTCOMES, late, "review", 1, trace.GENESIS)))
    log = written(rows, tmp_path, torn=False)
    first = plan(log.lake.at(end), [], window=Window(), now=NOW)
    found = plan(log.lake, [Look(night=1, range=first.window)], window=Window(), now=NOW)
    assert found.window.decisions == 0
    assert touched_of(found) == {(of["tenant"], of["session_id"]): (1, 1, 0, 0)}
    assert found.reopened == {1: {"sessions": 1, "labels": 1, "outcomes": 0, "decisions": 0}}


def test_a_lake_that_went_back_is_told(log: Log) -> None:
    whole = plan(log.lake, [], window=Window(), now=NOW).window
    look = Look(night=1, range=whole)
    older = log.lake.at({**whole.to, "a": 3})
    with pytest.raises(PinUnreachable, match=r"up to position 3, an earlier night saw it up to .*older copy"):
        plan(older, [look], window=Window(), now=NOW)
    with pytest.raises(ColumnUnknown, match="did you mean `tenant`"):
        plan(log.lake, [], window=Window(), now=NOW, chosen=pl.col("tennant") == "x")
