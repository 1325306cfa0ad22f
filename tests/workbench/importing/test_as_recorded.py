"""An imported decision is the row that the real runtime writes of the same call, under the same bundle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

import workbench as wb
from runtime import Runtime
from runtime.bundle import load_bundle
from workbench.importing import import_calls

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.session import Session

CALLS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("a", "refund", {"order_id": "o-1", "amount": 10.5, "note": None, "tags": ["x", "y"]}, True),
    ("a", "refund", {"order_id": "o-1", "amount": 10.5, "note": None, "tags": ["x", "y"]}, False),
    ("b", "look", {"where": {"shelf": 3}}, True),
    ("a", "look", {"where": {"shelf": 4, "box": "é"}}, True),
    ("b", "refund", {"order_id": 'o "2"', "amount": 7, "note": "late", "tags": []}, False),
    ("b", "look", {"where": {"shelf": 3}}, True),
    ("b", "look", {"where": {"shelf": 3}}, True),
]
"""Session, tool, arguments, whether it works."""
MAPPING: dict[str, Any] = {
    "version": 1,
    "call": {
        "session": "{s}", "tool": "{t}", "tenant": "acme", "principal": "Agent::bot", "on_behalf_of": "User::{user}",
        "args": "args",
    },
    "outcome": {"otherwise": "ran", "error": "err"},
    "tools": {"refund": {"resource": "Order::{order_id}", "writes": ["Order::{order_id}"], "effect": "idempotent"}},
}  # fmt: skip
DIFFERENT = {
    "decision_id", "decided_at", "evaluated_at", "latency_us", "session_state", "stage_inputs", "writer", "position",
    "prev_hash", "hash",
}  # fmt: skip
"""Columns that hold the moment, or a ledger's own; counters and inputs are compared apart."""


def _live(calls: list[dict[str, Any]], bundle: Path, lake: Path) -> None:
    runtime = Runtime.open(load_bundle(bundle), lake=str(lake))
    works = [True]

    def refund(order_id: str, amount: float, tags: list[str], note: str | None = None) -> None:
        if not works[0]:
            raise TimeoutError("the shop did not answer")

    def look(where: dict[str, Any]) -> None: ...

    runtime.tool(refund, resource="Order::{order_id}", writes=["Order::{order_id}"], effect="idempotent")
    runtime.tool(look)
    sessions: dict[str, Session] = {}
    for call in calls:
        if call["s"] not in sessions:
            identity = {"principal": "Agent::bot", "tenant": "acme", "on_behalf_of": f"User::{call['user']}"}
            sessions[call["s"]] = runtime.session(session_id=call["s"], **identity).__enter__()
        works[0] = call["err"] is None
        try:
            sessions[call["s"]].call(call["t"], **call["args"])
        except TimeoutError:
            assert call["err"] is not None
    for session in reversed(sessions.values()):
        session.__exit__(None, None, None)
    runtime.drain()
    runtime.close()


def _decisions(lake: Path) -> list[dict[str, Any]]:
    return wb.open(lake).decisions.sort("session_id", "step").collect().to_dicts()


def test_every_column(tmp_path: Path) -> None:
    rows = [
        {
            "s": s,
            "t": t,
            "user": f"u-{s}",
            "args": args,
            "err": None if works else "TimeoutError: the shop did not answer",
        }
        for s, t, args, works in CALLS
    ]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = import_calls(
        tmp_path / "calls.jsonl", MAPPING, tmp_path / "imported", bundle_folder=tmp_path / "ungoverned"
    )
    assert found.mapped == len(rows)
    _live(rows, tmp_path / "ungoverned", tmp_path / "live")
    imported, live = _decisions(tmp_path / "imported"), _decisions(tmp_path / "live")
    for mine, theirs in zip(imported, live, strict=True):
        for column in theirs.keys() - DIFFERENT:
            assert mine[column] == theirs[column], column
        state, counted = json.loads(mine["session_state"]), json.loads(theirs["session_state"])
        assert state == {name: counted[name] for name in state}
        assert {"calls", "failures", "repeats"} == state.keys()
        inputs, seen = json.loads(mine["stage_inputs"]), json.loads(theirs["stage_inputs"])
        assert inputs["context"] == seen["context"]
        assert inputs["limits"] == {name: seen["limits"][name] for name in inputs["limits"]}
        assert inputs["limits"].keys() == {"cycles", *state}
    ends = [
        wb.open(tmp_path / lake).outcomes.filter(pl.col("kind") == "execution").collect()
        for lake in ("imported", "live")
    ]
    columns = ["session_id", "tenant", "status", "reason_code", "error_type", "error_message"]
    one, two = (end.select(columns).sort(columns) for end in ends)
    assert one.equals(two)
