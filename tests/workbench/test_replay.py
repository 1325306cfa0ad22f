"""Replay over real lakes: the runtime writes them, Delta holds them, nothing is mocked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from runtime import ApprovalRequired, Blocked, CallableSource, Runtime
from runtime.trace import ExecutionStatus
from workbench.compare import compare
from workbench.effects import ALL_EFFECTS, EFFECTS, now_of, then_of
from workbench.lake import Lake, open_lake
from workbench.replay import CAUSES, FRAME

SCHEMA = """
entity User;
entity Agent in [Team] = { level?: Long };
entity Team;
entity Order = { owner?: String };
action "refund" appliesTo {
  principal: [Agent], resource: [Order],
  context: { args: { order_id: String, amount_cents: Long, note?: String },
             order?: { refundable_cents: Long, vip?: Bool } }
};
action "look" appliesTo { principal: [Agent], resource: [Order], context: { args: { order_id: String } } };
"""
PERMIT = '@id("permit") permit(principal is Agent, action, resource);\n'
BASE = (
    PERMIT
    + '@id("huge") forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > 9000 };\n'
)
STRICT = BASE + (
    '@id("over") forbid(principal, action == Action::"refund", resource) '
    "when { context has order && context.args.amount_cents > context.order.refundable_cents };\n"
)
CAPPED = BASE + (
    '@id("cap") @verdict("modify") @patch("{\\"amount_cents\\": {\\"$ref\\": \\"context.order.refundable_cents\\"}}") '
    'forbid(principal, action == Action::"refund", resource) '
    "when { context has order && context.args.amount_cents > context.order.refundable_cents };\n"
)
ASKING = (
    BASE
    + '@id("ask") @verdict("approve") forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > 100 };\n'
)
FACTS = """
[sources.orders]
kind = "delta"
uri = "../orders"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["refundable_cents"]
tenant_column = "tenant"
"""


def write_bundle(
    folder: Path, policies: str, *, context: str = "", limits: str = "", schema: str = SCHEMA
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p.cedar").write_text(policies)
    (folder / "schema.cedarschema").write_text(schema)
    (folder / "context.toml").write_text(context)
    (folder / "limits.toml").write_text(limits)
    return folder


def write_orders(root: Path, cents: int) -> None:
    rows = pa.table(
        {"tenant": ["acme", "acme"], "order_id": ["o-1", "o-2"], "refundable_cents": [cents, 9999]}
    )
    write_deltalake(str(root / "orders"), rows, mode="overwrite")


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("refund", {"order_id": "o-1", "amount_cents": 50}),
    ("refund", {"order_id": "o-1", "amount_cents": 500}),
    ("refund", {"order_id": "o-2", "amount_cents": 500}),
    ("refund", {"order_id": "o-9", "amount_cents": 500}),
    ("refund", {"order_id": "o-1", "amount_cents": 9500}),
    ("look", {"order_id": "o-1"}),
    ("refund", {"order_id": "o-1", "amount_cents": "x"}),
    ("refund", {"order_id": "o-1"}),
    ("shell", {}),
]


def record(root: Path, bundle: Path, calls: list[tuple[str, dict[str, Any]]] = CALLS, **kwargs: Any) -> Path:
    lake = root / "lake"
    with Runtime.open(bundle, lake=lake, **kwargs) as runtime:
        runtime.tool(
            lambda order_id, amount_cents, note=None: {"ok": True},
            name="refund",
            resource="Order::{order_id}",
        )
        runtime.tool(lambda order_id: "seen", name="look", resource="Order::{order_id}")
        runtime.tool(lambda: None, name="shell")
        with runtime.session(principal="Agent::bot", tenant="acme", session_id="s") as session:
            for tool, args in calls:
                try:
                    session.call(tool, **args)
                except (Blocked, ApprovalRequired):
                    continue
    return lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    write_orders(tmp_path, 200)
    return open_lake(record(tmp_path, write_bundle(tmp_path / "base", BASE, context=FACTS)))


def statuses(frame: pl.LazyFrame, *columns: str) -> list[Any]:
    return frame.select(*columns).collect().rows()


def test_every_row_reproduces_itself_on_both_levels(lake: Lake) -> None:
    replay = lake.replay()
    rows = replay.frame.collect()
    assert rows.schema == dict(FRAME)
    assert rows["decidable"].all()
    assert rows["recompilable"].all()
    assert rows["effect"].to_list() == ["same"] * len(CALLS)
    assert not rows["verdict_changed"].any()
    assert rows["verdict"].to_list() == ["allow"] * 4 + ["block", "allow", "block", "block", "block"]
    assert rows["reason_code"].to_list()[4:] == [
        "forbidden", "permitted", "projection_failed", "args_invalid", "action_undeclared",
    ]  # fmt: skip
    counts = replay.counts()
    assert (counts["decisions"], counts["decisions_decided"], counts["recompilable"]) == (9, 9, 9)


def test_replay_needs_nothing_but_the_tables(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "base" / "p.cedar").unlink()
    (tmp_path / "lake" / "_ledger.sqlite").unlink()
    assert lake.replay().counts()["decisions_decided"] == 9


def test_a_stricter_policy_prevents(lake: Lake, tmp_path: Path) -> None:
    replay = lake.replay(policy=write_bundle(tmp_path / "strict", STRICT, context=FACTS))
    rows = replay.frame.collect()
    assert rows["effect"].to_list() == [
        "same",
        "prevented",
        "same",
        "same",
        "same",
        "same",
        "same",
        "same",
        "same",
    ]
    assert rows["determining"].to_list()[1] == ["over"]
    assert rows["verdict_changed"].to_list()[1] is True


def test_modify_alters_approve_holds(lake: Lake, tmp_path: Path) -> None:
    capped = lake.replay(policy=write_bundle(tmp_path / "capped", CAPPED, context=FACTS)).frame.collect()
    assert capped["effect"].to_list()[:5] == ["same", "altered", "same", "same", "same"]
    assert '"amount_cents":200' in capped["enforced_args"].to_list()[1]
    asking = lake.replay(policy=write_bundle(tmp_path / "asking", ASKING, context=FACTS)).frame.collect()
    assert asking["effect"].to_list()[:5] == ["same", "held", "held", "held", "same"]


def test_a_laxer_policy_releases(lake: Lake, tmp_path: Path) -> None:
    rows = lake.replay(policy=write_bundle(tmp_path / "lax", PERMIT, context=FACTS)).frame.collect()
    assert rows["effect"].to_list()[4] == "released"
    assert rows["then"].to_list()[4] == "did_not_run"


def test_what_was_not_asked_is_undecided_and_what_does_not_hang_on_it_is_decided(tmp_path: Path) -> None:
    write_orders(tmp_path, 200)
    lake = open_lake(record(tmp_path, write_bundle(tmp_path / "base", BASE)))  # no facts at all
    replay = lake.replay(policy=write_bundle(tmp_path / "strict", STRICT, context=FACTS))
    rows = replay.frame.collect()
    assert rows["status"].to_list()[:6] == ["undecided"] * 4 + ["decided", "decided"]
    assert rows["missing"].to_list()[0] == ["context.order", "principal.level", "resource.owner"]
    assert rows["cause"].to_list()[0] == "missing_fact"
    assert rows["verdict"].to_list()[4:6] == ["block", "allow"]
    counts = replay.counts()
    assert counts["decisions_undecided"] + counts["decisions_decided"] + counts["decisions_quarantined"] == 9
    # Compiled again from the table as it was then, the same rows are decided.
    again = lake.replay(policy=tmp_path / "strict", context=tmp_path / "strict").frame.collect()
    assert again["effect"].to_list()[:4] == ["same", "prevented", "same", "same"]


def test_context_replay_uses_the_facts_of_then(lake: Lake, tmp_path: Path) -> None:
    write_orders(tmp_path, 10)  # today everything would be over
    strict = write_bundle(tmp_path / "strict", STRICT, context=FACTS)
    then = lake.replay(policy=strict, context=strict).frame.collect()
    assert then["effect"].to_list()[:2] == ["same", "prevented"]
    now = lake.replay(policy=strict, context=strict, at=datetime.now(UTC)).frame.collect()
    assert now["effect"].to_list()[:2] == ["prevented", "prevented"]
    assert lake.replay().counts()["recompilable"] == 9


def test_limits_are_an_axis_of_their_own(lake: Lake, tmp_path: Path) -> None:
    few = write_bundle(tmp_path / "few", BASE, context=FACTS, limits='[[budget]]\nname = "few"\nmax = 2\n')
    rows = lake.replay(limits=few).frame.collect()
    assert rows["decided_by"].to_list()[:5] == ["policy", "policy", "limits", "limits", "limits"]
    assert lake.replay(policy=few).frame.collect()["decided_by"].to_list()[2] == "policy"


def test_a_fact_whose_key_the_patch_changed_was_not_asked(lake: Lake, tmp_path: Path) -> None:
    move = BASE + (
        '@id("move") @verdict("modify") @patch("{\\"order_id\\": \\"o-2\\"}") forbid(principal, action == Action::"refund", resource) '
        'when { context.args.order_id == "o-1" && context.args.amount_cents < 100 };\n'
        '@id("over") forbid(principal, action == Action::"refund", resource) '
        'when { context has order && context.order.refundable_cents > 5000 && context.args.order_id == "o-2" };\n'
    )
    rows = lake.replay(policy=write_bundle(tmp_path / "move", move, context=FACTS)).frame.collect()
    assert rows["status"].to_list()[:2] == ["undecided", "decided"]


def test_unversioned_sources_cannot_be_compiled_again(tmp_path: Path) -> None:
    spec = FACTS.replace('kind = "delta"\nuri = "../orders"', 'kind = "callable"')
    bundle = write_bundle(tmp_path / "base", BASE, context=spec)
    source = CallableSource(lambda where: {"tenant": "acme", "refundable_cents": 5})
    lake = open_lake(record(tmp_path, bundle, sources={"orders": source}))
    own = lake.replay(sources={"orders": source})
    assert own.counts()["decidable"] == 9
    assert own.counts()["decisions_decided"] == 9
    assert own.frame.collect()["recompilable"].to_list()[:6] == [False] * 5 + [True]
    rows = lake.replay(policy=bundle, context=bundle, sources={"orders": source}).frame.collect()
    assert rows["cause"].to_list()[:6] == ["unversioned_source"] * 5 + [None]


def test_a_vacuumed_source_quarantines_context_replay_only(lake: Lake, tmp_path: Path) -> None:
    write_orders(tmp_path, 10)
    table = DeltaTable(str(tmp_path / "orders"))
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    strict = write_bundle(tmp_path / "strict", STRICT, context=FACTS)
    assert lake.replay(policy=strict).counts()["decisions_decided"] == 9
    causes = lake.replay(policy=strict, context=strict).frame.collect()["cause"].to_list()
    assert causes[:6] == ["source_vacuumed"] * 5 + [None]


def _tamper(lake: Lake, table: str, changes: dict[str, str], where: str) -> Lake:
    DeltaTable(str(Path(lake.uri) / table)).update(updates=changes, predicate=where)
    return open_lake(lake.uri)


@pytest.mark.parametrize(
    ("table", "changes", "cause"),
    [
        ("decisions", {"verdict": "'block'"}, "not_reproduced"),
        ("decisions", {"args": '\'{"order_id":"o-1","amount_cents":1}\''}, "row_corrupt"),
        ("decisions", {"principal_id": "'mallory'"}, "not_reproduced"),
        ("decisions", {"context_hash": "'0000'"}, "context_lost"),
        ("decisions", {"bundle_version": "'0000'"}, "policy_lost"),
        ("decisions", {"resource_template": "'nonsense'"}, "row_unreadable"),
        ("decisions", {"session_state": "'{}'"}, "not_reproduced"),
    ],
)
def test_a_changed_row_is_quarantined_with_its_cause(
    lake: Lake, table: str, changes: dict[str, str], cause: str
) -> None:
    found = _tamper(lake, table, changes, "step = 0").replay().frame.collect()
    assert found["status"].to_list()[0] == "quarantined"
    assert found["cause"].to_list()[0] == cause
    assert cause in CAUSES
    assert found["status"].to_list()[1:] == ["decided"] * 8
    assert found["effect"].to_list()[0] == "quarantined"


def test_a_changed_context_is_quarantined(lake: Lake) -> None:
    found = _tamper(lake, "contexts", {"context": "'{}'"}, "true").replay().counts()
    assert found["cause_context_corrupt"] == 6
    assert found["decisions_quarantined"] == 6


def test_replaying_the_same_policy_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    own, same = lake.replay(), lake.replay(policy=tmp_path / "base")
    assert own.digest() == same.digest()
    assert lake.replay().digest() == own.digest()
    other = lake.replay(policy=write_bundle(tmp_path / "strict", STRICT, context=FACTS))
    assert other.digest() != own.digest()


def test_equal_effects_of_other_arguments_are_another_digest(lake: Lake, tmp_path: Path) -> None:
    halved = BASE + (
        '@id("cap") @verdict("modify") @patch("{\\"amount_cents\\": CENTS}") '
        'forbid(principal, action == Action::"refund", resource) when { context.args.amount_cents > 200 };\n'
    )
    one, two = (
        lake.replay(policy=write_bundle(tmp_path / cents, halved.replace("CENTS", cents), context=FACTS))
        for cents in ("100", "101")
    )
    assert one.frame.collect()["effect"].to_list() == two.frame.collect()["effect"].to_list()
    assert "altered" in one.frame.collect()["effect"].to_list()
    assert one.digest() != two.digest()


def test_the_headline_says_what_is_beyond_the_pin(lake: Lake, tmp_path: Path) -> None:
    pins = lake.pins
    record(tmp_path, tmp_path / "base", CALLS[4:5])
    replay = open_lake(lake.uri, at=pins).replay()
    beyond = "1 position of the log is beyond the pin, and not counted"
    assert (
        replay.headline
        == f"100 % of 9 decisions replayable as recorded; 0 undecided, 0 quarantined; {beyond}"
    )
    assert compare(replay, replay).headline.endswith(f"\n{beyond}.")
    assert "beyond" not in lake.replay().headline


def test_a_share_that_is_not_all_is_not_rounded_to_all(lake: Lake) -> None:
    replay = lake.replay()
    rows = pl.concat([replay.rows] * 500)
    rows = rows.with_columns(
        status=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("undecided")).otherwise("status")
    )
    assert replace(replay, frame=rows.lazy()).headline.startswith("> 99.9 % of 4,500 decisions")


def test_new_rows_do_not_move_a_pin(lake: Lake, tmp_path: Path) -> None:
    before = lake.replay().digest()
    record(tmp_path, tmp_path / "base", CALLS[:2])
    assert lake.replay().digest() == before
    assert open_lake(lake.uri).replay().counts()["decisions"] == 11


def test_duplicates_never_run_twice_in_a_replay(tmp_path: Path) -> None:
    call = {"order_id": "o-1", "amount_cents": 50, "idempotency_key": "k"}
    calls = [("refund", call), ("refund", call)]
    write_orders(tmp_path, 200)
    lake = open_lake(record(tmp_path, write_bundle(tmp_path / "base", BASE, context=FACTS), calls))
    rows = lake.replay().frame.collect()
    assert rows["kind"].to_list() == ["call", "duplicate"]
    assert rows["effect"].to_list() == ["same", "same"]
    assert rows["then"].to_list() == ["ran", "did_not_run"]


def test_the_effect_table_is_total() -> None:
    thens = {then_of(v, k, s) for v in ("allow", "modify", "approve", "block") for k in ("call", "duplicate")
             for s in (None, *get_args(ExecutionStatus))}  # fmt: skip
    nows = {now_of(v, kind=k, same_action=s) for v in (None, "allow", "modify", "approve", "block")
            for k in ("call", "duplicate") for s in (True, False)}  # fmt: skip
    assert set(EFFECTS) == {(then, now) for then in thens for now in nows}
    assert set(EFFECTS.values()) | {"quarantined"} == set(ALL_EFFECTS)


@pytest.mark.parametrize(
    ("verdict", "status", "then"),
    [
        ("allow", "succeeded", "ran"),
        ("modify", "failed", "ran"),
        ("allow", None, "in_doubt"),
        ("allow", "cancelled", "in_doubt"),
        ("approve", None, "waiting"),
        ("approve", "succeeded", "granted"),
        ("approve", "in_doubt", "granted"),
        ("approve", "aborted", "not_granted"),
        ("approve", "denied", "not_granted"),
        ("approve", "expired", "not_granted"),
        ("allow", "aborted", "taken_back"),
        ("modify", "compensated", "taken_back"),
        ("allow", "in_doubt", "in_doubt"),
        ("allow", "a status of a later version", "in_doubt"),
        ("block", None, "did_not_run"),
    ],
)
def test_what_then_became_of_a_call(verdict: str, status: str | None, then: str) -> None:
    assert then_of(verdict, "call", status) == then
    assert then_of(verdict, "duplicate", status) == "did_not_run"


ASKED: tuple[str | None, ...] = (None, "denied", "expired")
"""How a decision that asks for approval can end; what runs after a grant has a decision of its own."""


@pytest.mark.parametrize(
    ("verdict", "status"),
    [(verdict, status) for verdict in ("allow", "modify") for status in (None, *get_args(ExecutionStatus))
     if status not in ASKED[1:]] + [("approve", status) for status in ASKED],
)  # fmt: skip
def test_the_same_decision_changes_no_effect(verdict: str, status: str | None) -> None:
    """Whatever came after the verdict (guards, people, a crash), a self-replay says `same`."""
    then, now = then_of(verdict, "call", status), now_of(verdict, kind="call", same_action=True)
    assert EFFECTS[then, now] == "same"


def test_a_patch_the_tool_could_not_take_replays_as_the_block_it_was(tmp_path: Path) -> None:
    """Only the runtime knows signatures: a removed argument would bring back a default that no policy saw."""
    text = PERMIT + (
        '@id("cut") @verdict("modify") @patch("{\\"note\\": null}") forbid(principal, action == Action::"refund", resource) '
        "when { context.args has note };\n"
    )
    bundle = write_bundle(tmp_path / "base", text)
    with Runtime.open(bundle, lake=tmp_path / "lake") as runtime:
        runtime.tool(
            lambda order_id, amount_cents, note="default": 1, name="refund", resource="Order::{order_id}"
        )
        with (
            runtime.session(principal="Agent::bot", tenant="acme") as session,
            pytest.raises(Blocked) as caught,
        ):
            session.call("refund", order_id="o-1", amount_cents=5)
    assert caught.value.decision.reason_code == "patch_invalid"
    rows = open_lake(tmp_path / "lake").replay().frame.collect()
    assert rows["status"].to_list() == ["decided"]
    assert rows["reason_code"].to_list() == ["patch_invalid"]
