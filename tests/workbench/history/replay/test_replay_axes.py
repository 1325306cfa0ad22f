"""The axes of a replay: other schemas, other contexts, other limits, several bundles and ledgers in one lake."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from workbench.errors import UnsupportedPolicy

SCHEMAS: dict[str, list[tuple[str, str]]] = {
    "fewer attributes": [("level?: Long, ", ""), ("label?: String,\n  count?: Long", "label?: String")],
    "fewer facts": [("rows?: Set<{ k: String, v: Long }>, ", ""), ("vip?: Bool, ", "")],
    "more attributes": [("entity Agent in [Team, Agent] = {", "entity Agent in [Team, Agent] = { rank?: Long,"), ("limits?: Set<Long>", "limits?: Set<Long>, risk?: { score: Long }")],
    "an action of another name": [("action look in", "action see in")],
    "another type of an attribute": [("level?: Long", "level?: String"), ("vip?: Bool", "vip?: String")],
    "another type of an argument": [("amount: Long", "amount: decimal")],
    "a scaled argument": [("amount: Long", '@scaled("amount*10") tenths: Long')],
    "required becomes optional": [("refundable: Long", "refundable?: Long"), ("amount: Long", "amount?: Long")],
    "optional becomes required": [("note?: String", "note: String"), ("rate?: decimal, owner?", "rate: decimal, owner?")],
    "no user": [(", on_behalf_of?: Agent } };\naction ping", " } };\naction ping"), ("on_behalf_of?: User", "on_behalf_of?: Agent")],
    "a required user": [("on_behalf_of?: User", "on_behalf_of: User")],
    "entities of an enumeration": [("entity Order in [Agent, Team, Order] = {\n  owner?: Agent, open?: Bool, amount?: decimal, lines?: Set<{ sku: String, qty: Long }>, color?: Color, label?: String,\n  count?: Long };", 'entity Order enum ["o-1", "zed"];')],
    "other parents": [("entity Agent in [Team, Agent] =", "entity Agent in [Team] ="), ("entity Order in [Agent, Team, Order] =", "entity Order =")],
    "another resource": [("action ping in [reads, money] appliesTo { principal: [Agent], resource: [Agent]", "action ping in [reads, money] appliesTo { principal: [Agent], resource: [Order]")],
    "a set is a record": [("rows?: Set<{ k: String, v: Long }>", "rows?: { k?: String, v?: Long }"), ("tags?: Set<String>,\n  profile", "tags?: String,\n  profile")],
    "a record of more": [("profile?: { grade?: Long, city?: String,", "profile?: { grade?: Long, city?: String, zip?: String,")],
}  # fmt: skip
PERMIT = '@id("permit") permit(principal, action, resource);\n'
LOOSE = (
    PERMIT
    + '@id("big") forbid(principal, action == Action::"refund", resource) when { context.session.calls > 3 || context has order };\n'
)


SOONER = {"fewer facts", "a scaled argument", "optional becomes required", "entities of an enumeration"}
"""Of each kind one: facts, projection, what must be there, entities. The rest takes a minute."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SOONER else pytest.mark.slow) for name in SCHEMAS]
)
def test_candidates_of_another_schema(desk: Any, both: Any, kit: Any, name: str) -> None:
    schema = kit.SCHEMA
    for old, new in SCHEMAS[name]:
        assert old in schema
        schema = schema.replace(old, new)
    both(desk, policy=kit.bundle(LOOSE, schema, ""), recompile=False)


@pytest.mark.slow
def test_a_context_that_no_fact_fills_is_required(desk: Any, both: Any, kit: Any) -> None:
    schema = kit.SCHEMA.replace("limits?: Set<Long>", "limits?: Set<Long>, risk: Long").replace(
        "refundable: Long }, on", "refundable: Long }, more: String, on"
    )
    replay = both(desk, policy=kit.bundle(LOOSE, schema, ""), recompile=False)
    assert "projection_failed" in replay.rows["reason_code"].to_list()


@pytest.mark.slow
def test_limits(desk: Any, both: Any, kit: Any, record: Any) -> None:
    limits = '[[budget]]\nname = "few"\nmax = 0\nactions = ["ping"]\n[[budget]]\nname = "one"\nmax = 1\n'
    few = kit.bundle(kit.POLICIES, limits=limits)
    both(desk, limits=few, recompile=False)
    both(desk, policy=few, limits=few, recompile=False)
    calls = [kit.Call("look", {"order_id": "o-1"}, "ana") for _ in range(2)] + [
        kit.Call("ping", {"to": "ana"}, "bot")
    ]
    replay = both(record(few, calls), sources=kit.looked_up(kit.DATA), columnar=True)
    assert replay.rows["decided_by"].to_list() == ["policy", "policy", "limits"]


def _orders(root: Path, refundable: int) -> None:
    rows = {"order_id": ["o-1", "o-2"], "refundable": [refundable, 9], "owner": ["ana", "bot"]}
    write_deltalake(str(root / "orders"), pa.table(rows), mode="overwrite")


DELTA = """
[sources.orders]
kind = "delta"
uri = "../orders"
[[facts]]
name = "order"
actions = ["refund"]
source = "orders"
key = { order_id = "args.order_id" }
fields = ["refundable", "owner"]
shared = true
"""
OVER = (
    PERMIT
    + '@id("over") forbid(principal, action == Action::"refund", resource) when { context has order && context.args.amount > context.order.refundable };\n'
)


def test_contexts_compiled_again_from_versioned_sources(
    record: Any, both: Any, kit: Any, tmp_path: Path
) -> None:
    _orders(tmp_path, 100)
    own = kit.bundle(PERMIT, context=DELTA.replace(', "owner"', ""))
    calls = [
        kit.Call("refund", {"order_id": order, "amount": n}, who)
        for order in ("o-1", "o-2", "o-3")
        for n, who in ((5, "ana"), (50, "bot"))
    ]
    lake = record(own, calls, {})
    _orders(tmp_path, 7)
    lake = record(own, calls, {})
    both(lake, columnar=True)
    strict = kit.bundle(OVER, context=DELTA)
    assert both(lake, policy=strict).counts()["decisions_undecided"] > 0
    then = both(lake, policy=strict, context=strict, columnar=True)
    now = both(lake, policy=strict, context=strict, at=datetime.now(UTC), columnar=True)
    assert then.rows["verdict"].to_list() != now.rows["verdict"].to_list()
    both(lake, context=strict)
    both(lake, at=datetime.now(UTC))


def test_failed_stale_and_crossing_facts(record: Any, both: Any, kit: Any) -> None:
    old, new = "2020-01-01T00:00:00Z", datetime.now(UTC).isoformat()
    data = {
        "o-1": {"refundable": 1, "at": new}, "o-2": {"refundable": 1, "at": old}, "o-3": {"refundable": 1},
        "o-4": [{"refundable": 1, "at": new}, {"refundable": 2, "at": new}], "o-5": {"refundable": "x", "at": new}, "o-6": "bad",
        "o-7": {"refundable": 1, "at": "2999-01-01T00:00:00Z"},
    }  # fmt: skip
    spec = kit.fact(
        "order", "args.order_id", '["refund"]', fields='["refundable"]', max_age='"1h"', age_column='"at"'
    )
    calls = [kit.Call("refund", {"order_id": f"o-{n}", "amount": 1}) for n in range(8)] + [
        kit.Call("move", {"num": 1})
    ]
    for text in (spec, spec + 'on_stale = "flag"\n'):
        lake = record(
            kit.bundle(OVER, context=text), calls, kit.looked_up({"order": data}), lake=f"lake{len(text)}"
        )
        replay = both(lake, sources=kit.looked_up({"order": data}))
        both(lake, policy=kit.bundle(OVER, context=spec))
        assert {"source_failed", "not_unique", "projection_failed"} <= set(replay.rows["reason_code"])
        assert ("stale" in set(replay.rows["reason_code"])) is (text == spec)
        ahead = replay.rows.filter(pl.col("reason").str.contains("ahead of the decision"))
        assert ahead.height == (text == spec)


def test_facts_dated_ahead(record: Any, both: Any, kit: Any) -> None:
    """Blocked, in columns as by Cedar."""
    new = datetime.now(UTC).isoformat()
    data = {"o-1": {"refundable": 9, "at": new}, "o-2": {"refundable": 9, "at": "2999-01-01T00:00:00Z"}}
    head = kit.fact("order", "args.order_id", '["refund"]', fields='["refundable"]', age_column='"at"')
    strict = kit.bundle(OVER, context=head + 'max_age = "1h"\n')
    calls = [kit.Call("refund", {"order_id": order, "amount": 1}) for order in data]
    blocked = both(
        record(strict, calls, kit.looked_up({"order": data}), lake="strict"), columnar=True, allowed=("fact",)
    ).rows
    assert [code for code in blocked["reason_code"] if code == "stale"] == ["stale"]


def test_a_fact_of_another_tenant(record: Any, both: Any, kit: Any) -> None:
    data = {"o-1": {"refundable": 1, "tenant": "acme"}, "o-2": {"refundable": 1, "tenant": "zeta"}}
    spec = kit.fact("order", "args.order_id", '["refund"]', fields='["refundable"]').replace(
        "shared = true", 'tenant_column = "tenant"'
    )
    calls = [
        kit.Call("refund", {"order_id": order, "amount": 1}, tenant=tenant)
        for order in data
        for tenant in ("acme", "zeta")
    ]
    lake = record(kit.bundle(OVER, context=spec), calls, kit.looked_up({"order": data}))
    replay = both(lake, sources=kit.looked_up({"order": data}))
    assert replay.rows["reason_code"].to_list().count("tenant_crossing") == 2


@pytest.mark.slow
def test_two_bundles_and_two_ledgers(record: Any, both: Any, kit: Any) -> None:
    """Bundles differ in schema, facts change their places, and ledgers interleave."""
    calls = [
        kit.Call("refund", {"order_id": order, "amount": 99}, who)
        for order in ("o-1", "o-2", "zed")
        for who in ("bot", "ana")
    ]
    other = kit.SCHEMA.replace("label?: String,\n", "label?: String, refundable?: Long,\n")
    placed = kit.fact("order", "args.order_id", '["refund"]', fields='["refundable"]', into='"resource"')
    record(kit.bundle(kit.POLICIES), calls)
    record(kit.bundle(PERMIT, other, placed), calls, ledger="b.sqlite")
    record(kit.bundle(kit.PERMIT), calls[:2], ledger="b.sqlite")
    lake = record(kit.bundle(kit.POLICIES), [*calls, kit.Call("ping", {"to": "ana"})], ledger="c.sqlite")
    assert both(lake, sources=kit.looked_up(kit.DATA)).counts()["decisions"] == 21
    for policy in (kit.bundle(kit.POLICIES), kit.bundle(PERMIT, other, placed), kit.bundle(LOOSE)):
        both(lake, policy=policy)
        both(lake, policy=policy, context=policy, sources=kit.looked_up(kit.DATA))


def test_columns_demanded_name_what_they_do_not_take(desk: Any, record: Any, kit: Any) -> None:
    with pytest.raises(UnsupportedPolicy, match="cannot be decided in columns"):
        desk.replay(engine="columnar", recompile=False)
    lake = record(
        kit.bundle(PERMIT),
        [kit.Call("look", {"order_id": "o-1"}, "bot"), kit.Call("look", {"order_id": "o-2"}, "ana")],
    )
    replay = lake.replay(
        kit.bundle(
            PERMIT
            + '@id("o") forbid(principal, action, resource) when { principal has level && principal.level * 4 > 0 };'
        ),
        engine="columnar",
        recompile=False,
    )
    assert replay.rows["errors"].to_list() == [[], [{"policy": "o", "message": None}]]
    walking = kit.bundle(
        PERMIT
        + '@id("w") forbid(principal, action == Action::"look", resource) when { resource has owner && resource.owner has level };'
    )
    with pytest.raises(UnsupportedPolicy, match="goes through a reference"):
        lake.replay(walking, engine="columnar", recompile=False)


def test_a_lake_without_decisions(desk: Any, both: Any, tamper: Any, kit: Any) -> None:
    ids = desk.decisions.select("decision_id").collect()["decision_id"].to_list()
    lake = tamper("decisions", {ident: {"kind": "shadow"} for ident in ids})
    assert both(lake, recompile=False).rows.is_empty()
    assert isinstance(both(lake, policy=kit.bundle(PERMIT)).rows, pl.DataFrame)
