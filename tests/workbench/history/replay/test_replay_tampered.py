"""Lakes that somebody changed: what is lost, corrupt or contradicts itself has the same cause in columns and by Cedar."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from runtime.canonical import canonical, sha256


def _args(text: str) -> dict[str, str]:
    return {"args": text, "args_hash": sha256(text)}


NOT = "not_reproduced"
ARGS = '{"amount":1,"order_id":"o-1"}'
CHANGES: dict[str, tuple[dict[str, Any], str | None]] = {
    "verdict": ({"verdict": "approve"}, NOT),
    "stage": ({"decided_by": "limits"}, NOT),
    "reason": ({"reason_code": "nonsense"}, NOT),
    "args": ({"args": ARGS}, "row_corrupt"),
    "args and their hash": (_args(ARGS), NOT),
    "args that are no JSON": (_args("{"), "row_unreadable"),
    "principal": ({"principal_id": "mallory"}, NOT),
    "principal's type": ({"principal_type": "Team"}, NOT),
    "no principal": ({"principal_id": ""}, NOT),
    "user": ({"on_behalf_of_type": "User", "on_behalf_of_id": "eve"}, NOT),
    "user of another type": ({"on_behalf_of_type": "Agent", "on_behalf_of_id": "eve"}, NOT),
    "half a user": ({"on_behalf_of_type": "User", "on_behalf_of_id": None}, None),
    "resource": ({"resource_id": "o-77"}, NOT),
    "resource's type": ({"resource_type": "Agent"}, NOT),
    "no resource": ({"resource_type": None, "resource_id": None}, NOT),
    "template": ({"resource_template": "nonsense"}, "row_unreadable"),
    "template of a type": ({"resource_template": "Agent::{order_id}"}, NOT),
    "template and type": ({"resource_template": "Agent::{order_id}", "resource_type": "Agent"}, NOT),
    "template of a constant": ({"resource_template": lambda row: f"Order::{row['resource_id']}"}, None),
    "template of no argument": ({"resource_template": "Order::{nothing}"}, NOT),
    "tool": ({"tool": "ping"}, NOT),
    "tool nobody knows": ({"tool": "other"}, NOT),
    "session": ({"session_state": "{}"}, NOT),
    "session that is no JSON": ({"session_state": "nope"}, "row_unreadable"),
    "session with more": ({"session_state": '{"calls":0,"more":1}'}, None),
    "more calls": ({"session_state": '{"calls":7}'}, None),
    "scopes": ({"scopes": ["b", "a", "a"]}, None),
    "scopes needed": ({"required_scopes": ["admin"]}, NOT),
    "tenant": ({"tenant": "other"}, None),
    "projection": ({"projection": "{}"}, NOT),
    "projection that is no JSON": ({"projection": "x"}, NOT),
    "no projection": ({"projection": None}, NOT),
    "slice": ({"slice_hash": "00"}, NOT),
    "no slice": ({"slice_hash": None}, NOT),
    "slice of a patch": ({"enforced_slice_hash": lambda row: row["slice_hash"]}, NOT),
    "action": ({"action_hash": "00"}, NOT),
    "enforced": ({"enforced_args": ARGS}, NOT),
    "who determined": ({"determining": ["nobody"]}, NOT),
    "reasons": ({"cedar_reasons": ["permit", "huge"]}, NOT),
    "errors": ({"errors": [{"policy": "permit", "message": "no"}]}, NOT),
    "cedar": ({"cedar_decision": "NoDecision"}, NOT),
    "context": ({"context_hash": "0000"}, "context_lost"),
    "no context": ({"context_hash": None}, None),
    "context of a patch": ({"enforced_context_hash": "0000"}, "context_lost"),
    "bundle": ({"bundle_version": "0000"}, "policy_lost"),
    "bundle and args": ({"bundle_version": "0000", "args": "{}"}, "policy_lost"),
    "lost context and args": ({"context_hash": "0000", "args": "{}"}, "context_lost"),
    "moment": ({"evaluated_at": lambda row: row["evaluated_at"] + timedelta(microseconds=1)}, None),
    "policy hash": ({"policy_hash": "00"}, None),
    "told by the tool": ({"reason_code": "args_invalid"}, NOT),
    "told by the session": ({"reason_code": "duplicate_differs"}, NOT),
    "a duplicate": ({"kind": "duplicate"}, None),
}


def _calls(lake: Any, *reasons: str) -> list[str]:
    """Ids of decisions with these reasons, in order."""
    rows = lake.decisions.filter(
        (pl.col("tool") == "refund") & pl.col("reason_code").is_in(reasons)
    ).collect()
    return list(rows.filter(pl.col("resource_id") != "o-1").sort("position")["decision_id"])


@pytest.mark.parametrize("reason", ["permitted", "forbidden"])
def test_changed_rows_have_the_same_cause(tamper: Any, desk: Any, both: Any, kit: Any, reason: str) -> None:
    """Each change goes to a decision of its own, in one lake."""
    decisions = dict(zip(CHANGES, _calls(desk, reason), strict=False))
    lake = tamper("decisions", {ident: CHANGES[name][0] for name, ident in decisions.items()})
    found = both(lake, sources=kit.looked_up(kit.DATA)).rows
    causes = dict(found.select("decision_id", "cause").iter_rows())
    if reason == "permitted":
        expected = {name: CHANGES[name][1] for name in decisions if CHANGES[name][1] is not None}
        assert {name: causes[decisions[name]] for name in expected} == expected
    both(lake, policy=kit.bundle(kit.PERMIT), recompile=False)


PATCHED: dict[str, dict[str, Any]] = {
    "no slice": {"enforced_slice_hash": None},
    "other slice": {"enforced_slice_hash": "00"},
    "args": {"enforced_args": lambda row: row["args"]},
    "no args": {"enforced_args": None},
    "who determined": {"enforced_determining": ["cap"]},
}


def test_changed_rows_of_patched_calls_have_the_same_cause(
    tamper: Any, desk: Any, both: Any, kit: Any
) -> None:
    decisions = dict(zip(PATCHED, _calls(desk, "modified"), strict=False))
    assert len(decisions) == len(PATCHED)
    lake = tamper("decisions", {ident: PATCHED[name] for name, ident in decisions.items()})
    found = both(lake, sources=kit.looked_up(kit.DATA)).rows
    causes = dict(found.select("decision_id", "cause").iter_rows())
    assert {name: causes[ident] for name, ident in decisions.items()} == dict.fromkeys(PATCHED, NOT)


BROKEN = (
    "{}",
    "nonsense",
    "[]",
    canonical({"facts": {}, "spec": ""}),
    canonical({"facts": {"order": {}}, "spec": "x"}),
)


def test_changed_contexts_have_the_same_cause(tamper: Any, desk: Any, both: Any, kit: Any) -> None:
    """Some texts are changed, others with their addresses and the rows that refer to them."""
    addresses = desk.contexts.select("context_hash").collect()["context_hash"].to_list()
    texts: dict[str, dict[str, Any]] = {
        a: {"context": text} for a, text in zip(addresses, BROKEN, strict=False)
    }
    moved = dict(zip(addresses[len(BROKEN) :], BROKEN, strict=False))
    tamper(
        "contexts", texts | {a: {"context": text, "context_hash": sha256(text)} for a, text in moved.items()}
    )
    rows = desk.decisions.filter(pl.col("context_hash").is_in(list(moved))).collect()
    refers = {
        ident: {"context_hash": sha256(moved[address])}
        for ident, address in rows.select("decision_id", "context_hash").iter_rows()
    }
    found = both(tamper("decisions", refers), sources=kit.looked_up(kit.DATA)).rows
    assert {"context_corrupt", "row_unreadable"} <= set(found["cause"])


def test_of_several_faults_the_first_is_told(tamper: Any, desk: Any, both: Any, kit: Any) -> None:
    """A corrupt context goes before a lost one of the patch, corrupt arguments before a context that does not read."""
    rows = desk.decisions.filter(pl.col("context_hash").is_not_null()).sort("position").collect()
    one, two = rows["context_hash"].unique(maintain_order=True)[:2]
    tamper("contexts", {one: {"context": "{}"}, two: {"context": "[]", "context_hash": sha256("[]")}})
    changes: dict[str, dict[str, Any]] = {
        one: {"enforced_context_hash": "0000"},
        two: {"context_hash": sha256("[]"), "args": "{ }"},
    }
    pairs = (
        rows.filter(pl.col("context_hash").is_in([one, two]))
        .select("decision_id", "context_hash")
        .iter_rows()
    )
    found = both(
        tamper("decisions", {ident: changes[address] for ident, address in pairs}),
        sources=kit.looked_up(kit.DATA),
    ).rows
    assert {"context_corrupt", "row_corrupt"} <= set(found["cause"])
