"""Limits replayed: what was decided live comes out again, and other limits are judged from the same record."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import Blocked, Runtime
from runtime.bundle import Bundle, bundle_from_files
from runtime.canonical import canonical
from runtime.record import request_of
from runtime.usage import report_usage
from workbench.lake import Lake, open_lake

SCHEMA = """
entity Agent; entity User; entity Order; entity Tool;
action "pay" appliesTo { principal: [Agent], resource: [Order], context: {
  on_behalf_of?: User, args: { order: String, cents?: Long, @scaled("price*100") price_cents?: Long } } };
action "look" appliesTo { principal: [Agent], resource: [Tool], context: { on_behalf_of?: User, args: { n?: Long } } };
"""
POLICIES = """
@id("permit") permit(principal, action, resource);
@id("never") forbid(principal, action == Action::"pay", resource) when { context.args has cents && context.args.cents == 13 };
@id("cap") @verdict("modify") @patch("{\\"cents\\": 500}") forbid(principal, action == Action::"pay", resource)
  when { context.args has cents && context.args.cents > 500 };
"""
LIVE = """
version = 2
[[budget]]
name = "session-calls"
max = 30
[[budget]]
name = "pays"
max = 7
actions = ["pay"]
[[budget]]
name = "money"
per = "tenant"
measure = "args.cents"
window = "1h"
max = 4000
[[budget]]
name = "cost"
per = "principal"
measure = "cost_micros"
max = 250
[[budget]]
name = "rate"
per = "tool"
window = "60s"
max = 9
[[budget]]
name = "ana"
per = "on_behalf_of"
measure = "tokens"
max = 150
[[loop]]
name = "again"
max_repeats = 2
max_period = 3
[[breaker]]
name = "down"
last = 6
min_calls = 3
open_for = "30s"
actions = ["pay"]
"""


def bundle(limits: str, policies: str = POLICIES) -> Bundle:
    files = {"p.cedar": policies, "schema.cedarschema": SCHEMA, "limits.toml": limits}
    return bundle_from_files(files, "limits")


def recorded(root: Path, live: Bundle, n: int, seed: int) -> Lake:
    """A lake of random calls of random sessions, with failures, pauses and emergency stops."""
    pick, now = random.Random(seed), [datetime(2026, 11, 23, tzinfo=UTC)]
    with Runtime.open(live, lake=root / "lake", clock=lambda: now[0]) as runtime:

        def body() -> None:
            now[0] += timedelta(milliseconds=pick.randint(0, 900))
            report_usage(cost_micros=pick.randint(0, 9), input_tokens=pick.randint(0, 3), output_tokens=1)
            if pick.random() < 0.45:
                raise RuntimeError

        @runtime.tool(resource="Order::{order}")
        def pay(order: str, cents: int | None = None, price: Any = None) -> None:
            body()

        @runtime.tool
        def look(n: int | None = None) -> None:
            body()

        for _ in range(n):
            now[0] += timedelta(seconds=pick.choice([0, 0, 1, 5, 40]))
            if pick.random() < 0.04:
                what: dict[str, Any] = pick.choice([{"tool": "pay"}, {"tenant": "a"}, {"everything": True}])
                runtime.stops.set(reason="drill", **what)
            if pick.random() < 0.2:
                runtime.stops.lift()
            who = pick.choice("xy")
            session = runtime.session(
                principal=f"Agent::{who}",
                tenant=pick.choice("ab"),
                session_id=f"{who}-{pick.randint(0, 3)}",
                on_behalf_of="User::ana" if who == "y" else None,
            )
            tool = pick.choice(["pay", "pay", "look"])
            money: dict[str, Any] = pick.choice(
                [{}, {"cents": 13}, {"cents": 90}, {"cents": 900}, {"price": "1.25"}]
            )
            looks: dict[str, Any] = pick.choice([{}, {"n": 1}])
            args = {"order": "o", **money} if tool == "pay" else looks
            with suppress(Blocked, RuntimeError):
                session.call(tool, **args)
    return open_lake(str(root / "lake"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return recorded(tmp_path_factory.mktemp("limits"), bundle(LIVE), 260, 11)


CODES = {"budget_spent", "rate_exceeded", "loop_detected", "breaker_open", "stopped"}


def test_what_was_decided_live_comes_out_again(lake: Lake, both: Any) -> None:
    rows = both(lake, columnar=True, allowed=["an emergency stop"], recompile=False).rows
    assert set(rows["status"]) == {"decided"}
    assert set(rows["recorded_reason_code"]) >= CODES
    assert rows["reason_code"].to_list() == rows["recorded_reason_code"].to_list()
    reasons = lake.decisions.select("decision_id", "reason").collect()
    told = rows.join(reasons, on="decision_id", suffix="_then")
    assert told["reason"].to_list() == told["reason_then"].to_list()


def budget(max: int, **keys: Any) -> str:  # noqa: A002 - as in the file
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    return f'[[budget]]\nname = "c"\nmax = {max}\n{lines}'


CANDIDATES = {
    "fewer calls": budget(4),
    "more pays": budget(99, actions=["pay"]),
    "fewer pays": budget(5, actions=["pay"]),
    "less money": budget(700, per="tenant", measure="args.cents", window="1h"),
    "less cost": budget(100, per="principal", measure="cost_micros"),
    "session cost": budget(30, measure="cost_micros"),
    "session tokens": budget(20, measure="tokens"),
    "session time": budget(2000, measure="wall_ms"),
    "slower": budget(3, per="tool", window="60s"),
    "less for ana": budget(40, per="on_behalf_of", measure="tokens"),
    "loops": '[[loop]]\nname = "l"\nmax_repeats = 0\nmax_period = 2',
    "longer loops": '[[loop]]\nname = "l"\nmax_repeats = 1\nmax_period = 8',
    "the same breaker": '[[breaker]]\nname = "k"\nlast = 6\nmin_calls = 3\nopen_for = "30s"\nactions = ["pay"]',
    "several": budget(9)
    + '[[loop]]\nname = "l"\nmax_repeats = 1\n[[budget]]\nname = "d"\nmax = 20\nmeasure = "tokens"',
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_other_limits_are_judged_from_the_same_record(lake: Lake, both: Any, name: str) -> None:
    candidate = bundle("version = 2\n" + CANDIDATES[name])
    rows = both(lake, columnar=True, allowed=["an emergency stop"], limits=candidate, recompile=False).rows
    assert set(rows["status"]) == {"decided"}
    judged = by_the_runtime(lake, candidate)
    found = dict(rows.select("decision_id", "reason_code").iter_rows())
    for ident, codes in judged.items():
        assert found[ident] in codes, ident
    assert name == "more pays" or sum(code in CODES - {"stopped"} for code in found.values()) > 2


def by_the_runtime(lake: Lake, candidate: Bundle) -> dict[str, set[str]]:
    """What the runtime's own `judge` says, by decision: a refusal's code, or those of calls that limits let pass."""
    free = {"permitted", "forbidden", "modified"}
    found = {}
    for row in lake.decisions.collect().iter_rows(named=True):
        first = candidate.limits.judge(request_of(row), json.loads(row["projection"]))
        second = json.loads(row["enforced_projection"] or row["projection"])
        later = candidate.limits.judge(request_of(row), second)
        assert not first.missing
        if first.refusal is not None:
            found[row["decision_id"]] = {first.refusal.code}
        else:
            found[row["decision_id"]] = free | ({later.refusal.code} if later.refusal else set())
    return found


@pytest.mark.parametrize(
    ("limits", "missing"),
    [
        (budget(5, per="principal"), "limits.calls per principal"),
        (budget(5, per="tool", window="61s"), "limits.calls per tool in 61s"),
        (budget(5, actions=["look"]), 'limits.calls per session of ["look"]'),
        ('[[loop]]\nname = "l"\nmax_repeats = 0\nactions = ["pay"]', 'limits.cycles of ["pay"]'),
        ('[[breaker]]\nname = "k"\nactions = ["pay"]', "limits.breaker per tool"),
    ],
)
def test_a_counter_that_was_not_kept_is_missing(lake: Lake, both: Any, limits: str, missing: str) -> None:
    rows = both(lake, limits=bundle("version = 2\n" + limits), recompile=False).rows
    undecided = rows.filter(pl.col("status") == "undecided")
    assert undecided.height > 20
    assert all(each[0].startswith(missing) for each in undecided["missing"])
    decided = rows.filter(pl.col("status") == "decided")
    # Those that end the same whatever was counted: a stop held them, or policies block them anyway.
    sure = set(decided.filter(pl.col("tool").is_in(undecided["tool"].unique().implode()))["reason_code"])
    assert sure <= {"stopped", "forbidden", "permitted", "modified"}
    assert '["look"]' in missing or sure <= {"stopped", "forbidden"}


OLD = ("calls",)


def as_of_version_1(lake: Lake, copy: Path) -> Lake:
    """The same decisions as the first release recorded them."""
    shutil.copytree(lake.uri, copy)
    table = DeltaTable(copy / "decisions")
    rows = table.to_pyarrow_table()
    found = rows.to_pylist()
    for row in found:
        state = {name: value for name, value in json.loads(row["session_state"]).items() if name in OLD}
        row["session_state"] = canonical(state)
        row["stage_inputs"] = canonical(json.loads(row["stage_inputs"]) | {"limits": state})
    made = pa.Table.from_pylist(found, schema=rows.schema)
    write_deltalake(table, made, mode="overwrite", partition_by=table.metadata().partition_columns)
    return open_lake(str(copy))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    few = '[[budget]]\nname = "few"\nmax = 4\nactions = ["pay"]'
    return recorded(tmp_path_factory.mktemp("whole"), bundle(few), 120, 5)


@pytest.fixture(scope="module")
def old(whole: Lake, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return as_of_version_1(whole, tmp_path_factory.mktemp("old") / "lake")


READS = (
    POLICIES
    + '@id("frail") forbid(principal, action, resource) when { context.session has failures && context.session.failures > 1 };'
)


def test_rows_of_the_first_release_replay_as_they_were(old: Lake, both: Any) -> None:
    lake = old
    rows = both(lake, recompile=False).rows
    stopped = rows["recorded_reason_code"] == "stopped"  # the first release knew no stops
    assert rows.filter(~stopped)["status"].unique().to_list() == ["decided"]
    assert (rows["reason_code"] == "budget_spent").sum() > 3
    tighter = both(
        lake, limits=bundle('[[budget]]\nname = "few"\nmax = 2\nactions = ["pay"]'), recompile=False
    ).rows
    assert (tighter["reason_code"] == "budget_spent").sum() > (rows["reason_code"] == "budget_spent").sum()
    cost = both(lake, limits=bundle("version = 2\n" + budget(1, measure="cost_micros")), recompile=False).rows
    assert {name for each in cost["missing"] for name in each} == {"limits.cost_micros per session"}


def test_a_counter_that_the_first_release_did_not_record_is_missing_not_absent(
    whole: Lake, old: Lake, both: Any
) -> None:
    candidate = bundle('[[budget]]\nname = "few"\nmax = 4\nactions = ["pay"]', READS)
    new = both(whole, policy=candidate).rows
    assert set(new["status"]) == {"decided"}
    assert (new["reason_code"] == "forbidden").sum() > 3
    rows = both(old, policy=candidate).rows
    undecided = rows.filter(pl.col("status") == "undecided")
    assert undecided.height > 10
    assert {tuple(each) for each in undecided["missing"]} == {("context.session.failures",)}
    assert "permitted" not in set(rows["reason_code"])
    # A policy that asks for nothing new is not held up.
    assert set(both(old, policy=bundle("", POLICIES.replace("500", "400"))).rows["status"]) <= {
        "decided",
        "quarantined",
    }
